"""Flask-SQLAlchemy: its engines become one replicated database, and its sessions follow the switch."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from flask import Flask
from sqlalchemy import URL

from replswitch import ConfigurationError
from replswitch.sqlalchemy import RoutingSession, replicate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy import Engine

    from replswitch.sqlalchemy import EngineSwitch

_FORM: Final = (
    'It must be a list of bind keys of SQLALCHEMY_BINDS, or of URIs: ["slave1", "slave2"] or '
    '["mysql+pymysql://slave1.db/shop"].'
)

# Not copied to where the engine of a URI is made.
_ADDRESSES: Final = {"SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_BINDS"}


def replicated(app: Flask, db: SQLAlchemy, slaves: object, options: Mapping[str, Any]) -> EngineSwitch | None:
    """Let the switch decide where the sessions of an application's Flask-SQLAlchemy go.

    Args:
        app: the application; it is registered with ``db``.
        db: its Flask-SQLAlchemy.
        slaves: ``REPLSWITCH_SLAVES``; None where it is not set. Without slaves, the master serves slave state (S10).
        options: how the database is served.

    Returns:
        the switch of the database; None where there is neither a master nor a slave.

    Raises:
        ConfigurationError: a slave is none.
    """
    names = [] if slaves is None else slaves
    if not isinstance(names, list | tuple):
        raise ConfigurationError(f"REPLSWITCH_SLAVES is a value of type {type(slaves).__name__}. {_FORM}")
    with app.app_context():
        engines = dict(db.engines)
    master = engines.get(None)
    if master is None:
        if names or options:
            raise ConfigurationError(
                "REPLSWITCH_SLAVES and the options of the database are for the engine of SQLALCHEMY_DATABASE_URI, "
                "which is not set. Set it to the master's address."
            )
        return None
    found = [_slave(app, db, engines, name) for name in names]
    try:
        switch = replicate(master, found, **options)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error} The master's engine is that of SQLALCHEMY_DATABASE_URI, the slaves' are those of "
            "REPLSWITCH_SLAVES, and ReplSwitch(app), or init_app(app), calls replicate(): call it right after "
            "db.init_app(app)."
        ) from error
    _install(db)
    return switch


def _slave(app: Flask, db: SQLAlchemy, engines: Mapping[Any, Engine], name: Any) -> Engine:
    if not isinstance(name, str | URL) or not str(name):
        raise ConfigurationError(f"REPLSWITCH_SLAVES has a value of type {type(name).__name__} in it. {_FORM}")
    if name in engines:
        return engines[name]
    if not isinstance(name, str) or "://" in name:
        return _engine_of(app, db, name)
    keys = sorted(key for key in engines if key is not None)
    near = difflib.get_close_matches(name, keys, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"There are: {', '.join(keys)}." if keys else "It has none."
    raise ConfigurationError(f'REPLSWITCH_SLAVES names "{name}", which is no key of SQLALCHEMY_BINDS. {hint}')


def _engine_of(app: Flask, db: SQLAlchemy, uri: Any) -> Engine:
    """Make an engine with the master's options.

    As Flask-SQLAlchemy makes it, with its defaults for each driver, in an application that is nothing but settings.
    """
    settings = Flask(app.import_name, root_path=app.root_path, instance_path=app.instance_path, static_folder=None)
    settings.config.update({name: value for name, value in app.config.items() if name not in _ADDRESSES})
    settings.config["SQLALCHEMY_DATABASE_URI"] = uri
    try:
        db.init_app(settings)
    except Exception as error:
        # The text of the error is left out: there may be a password in it.
        raise ConfigurationError(
            f"A URI in REPLSWITCH_SLAVES cannot be used ({type(error).__name__}). {_FORM}"
        ) from error
    with settings.app_context():
        return db.engine


def _install(db: SQLAlchemy) -> None:
    """Let the sessions of ``db`` ask the switch. In applications without one they see no difference."""
    factory: Any = db.session.session_factory
    made = factory.class_
    if not issubclass(made, RoutingSession):
        factory.class_ = type(made.__name__, (RoutingSession, made), {"__module__": made.__module__})
