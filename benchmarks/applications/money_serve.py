"""A process that serves ihatemoney."""

from __future__ import annotations

from flask import got_request_exception

from applications.money_project import application
from applications.serving import given, note, serve

if __name__ == "__main__":
    app = application(given())
    got_request_exception.connect(note, app)
    serve(app)
