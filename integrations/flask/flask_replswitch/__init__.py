"""Binds replswitch to Flask, and to Flask-SQLAlchemy where an application has it."""

from flask_replswitch.decorators import use_master, use_slave
from flask_replswitch.extension import ReplSwitch

__all__ = ["ReplSwitch", "use_master", "use_slave"]
