"""FlaskBB, a forum on Flask-SQLAlchemy, as docs/flask.md puts it on a pair."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from applications.flask_settings import documented, replicated
from applications.lazy_annotations import lazily
from applications.serving import SECRET

if TYPE_CHECKING:
    from flask import Flask


def application(given: dict[str, Any]) -> Flask:
    """Make the forum; with ReplSwitch where the process is given slaves."""
    lazily("flaskbb")
    folder = Path(given["folder"])
    settings = {
        "SECRET_KEY": SECRET,
        "WTF_CSRF_SECRET_KEY": SECRET,
        "SERVER_NAME": None,
        "MAIL_SUPPRESS_SEND": True,
        "WHOOSHEE_DIR": str(folder / "index"),
        "LOG_PATH": str(folder),
        "USE_DEFAULT_LOGGING": False,
        "RATELIMIT_ENABLED": False,  # all visitors have one address
        **documented(given),
    }
    make: Any = import_module("flaskbb.app").create_app
    app: Flask = make(config=type("Settings", (), settings), instance_path=str(folder))
    return replicated(app, given)
