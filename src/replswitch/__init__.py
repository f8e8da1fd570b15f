"""Switch a Python web application between a master database and its slaves."""

from replswitch.connection import Connection, connect
from replswitch.errors import (
    ConfigurationError,
    NoServerError,
    ReplSwitchError,
    RevertError,
    SlaveWriteError,
)
from replswitch.state import MASTER, SLAVE, State, Switch

__all__ = [
    "MASTER",
    "SLAVE",
    "ConfigurationError",
    "Connection",
    "NoServerError",
    "ReplSwitchError",
    "RevertError",
    "SlaveWriteError",
    "State",
    "Switch",
    "connect",
]
