"""replswitch for Flask, and for Flask-SQLAlchemy if the application uses it."""

from replswitch.checking import require_package

require_package("Flask", "3.0", "flask")

from flask_replswitch.decorators import use_master, use_slave  # noqa: E402 - it needs Flask
from flask_replswitch.extension import ReplSwitch  # noqa: E402 - likewise

__all__ = ["ReplSwitch", "use_master", "use_slave"]
