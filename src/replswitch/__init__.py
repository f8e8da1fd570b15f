"""Switch a Python web application between a master database and its slaves."""

from replswitch.connect.connection import Connection, connect
from replswitch.decision import MASTER, SLAVE, State
from replswitch.engine.events import stats
from replswitch.engine.recording import unrecorded
from replswitch.errors import (
    ConfigurationError,
    NoServerError,
    PositionError,
    ReplSwitchError,
    RevertError,
    SlaveWriteError,
)
from replswitch.jobs import carry, resume
from replswitch.state import Switch

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
    "unrecorded",
]
