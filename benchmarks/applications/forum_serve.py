"""A process that serves the forum."""

from __future__ import annotations

from flask import got_request_exception

from applications.forum_project import application
from applications.serving import given, note, serve

if __name__ == "__main__":
    app = application(given())
    got_request_exception.connect(note, app)
    serve(app)
