"""Switch a Python web application between a master database and its slaves."""

from replswitch.connection import Connection, connect
from replswitch.errors import (
    ConfigurationError,
    NoServerError,
    PositionError,
    ReplSwitchError,
    RevertError,
    SlaveWriteError,
)
from replswitch.events import stats
from replswitch.jobs import carry, resume
from replswitch.state import MASTER, SLAVE, State, Switch

__all__ = [
    "MASTER",
    "SLAVE",
    "ConfigurationError",
    "Connection",
    "NoServerError",
    "PositionError",
    "ReplSwitchError",
    "RevertError",
    "SlaveWriteError",
    "State",
    "Switch",
    "carry",
    "connect",
    "resume",
    "stats",
]
