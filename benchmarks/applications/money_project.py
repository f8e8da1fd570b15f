"""ihatemoney, a Flask-SQLAlchemy application, as docs/flask.md puts it on a pair."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from applications.flask_settings import documented, replicated
from applications.serving import SECRET

if TYPE_CHECKING:
    from flask import Flask


def application(given: dict[str, Any]) -> Flask:
    """Make the application; with ReplSwitch where the process is given slaves."""
    settings = {
        "SECRET_KEY": SECRET,
        "SESSION_COOKIE_SECURE": False,  # there is no https here
        "RATELIMIT_ENABLED": False,  # all visitors have one address
        "MAIL_SUPPRESS_SEND": True,
        **documented(given),
    }
    make: Any = import_module("ihatemoney.run").create_app
    app: Flask = make(configuration=type("Settings", (), settings), instance_path=given["folder"])
    return replicated(app, given)
