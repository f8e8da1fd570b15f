"""The settings of a Flask application on a pair, as in docs/flask.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

if TYPE_CHECKING:
    from flask import Flask


def address(server: dict[str, Any], driver: str) -> str:
    """Return the address of a server, as SQLAlchemy wants it."""
    dialect = {"pymysql": "mysql+pymysql", "mysqlclient": "mysql+mysqldb"}[driver]
    parts = (server[name] for name in ("user", "password", "host", "port", "database"))
    return URL.create(dialect, *parts).render_as_string(hide_password=False)


def documented(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the database; those for slaves where the process is given some."""
    settings: dict[str, Any] = {"SQLALCHEMY_DATABASE_URI": address(given["master"], given["driver"])}
    slaves = {f"slave{number}": address(slave, given["driver"]) for number, slave in enumerate(given["slaves"], 1)}
    if slaves:
        settings |= {"SQLALCHEMY_BINDS": slaves, "REPLSWITCH_SLAVES": list(slaves), "REPLSWITCH_DEBUG_HEADER": True}
    return settings


def replicated(app: Flask, given: dict[str, Any]) -> Flask:
    """Register ReplSwitch where the process is given slaves; return the application."""
    if given["slaves"]:
        from flask_replswitch import ReplSwitch  # noqa: PLC0415 - only on our side

        ReplSwitch(app)
    return app
