"""replswitch for Flask, and for Flask-SQLAlchemy if the application uses it."""

from flask_replswitch.decorators import use_master, use_slave
from flask_replswitch.extension import ReplSwitch

__all__ = ["ReplSwitch", "use_master", "use_slave"]
