"""Make Flask-SQLAlchemy's engines one replicated database, and its sessions follow the switch."""

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

# The settings that are not copied to the application that makes the engine of a URI.
_ADDRESSES: Final = {"SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_BINDS"}


def replicated(app: Flask, db: SQLAlchemy, slaves: object, options: Mapping[str, Any]) -> EngineSwitch | None:
    """Replicate the engines of an application's Flask-SQLAlchemy, and make its sessions follow the switch.

    Args:
        app: the application, for which ``db.init_app(app)`` was called.
        db: its Flask-SQLAlchemy.
        slaves: ``REPLSWITCH_SLAVES``; None if it is not set. Without slaves, the master serves slave state (S10).
        options: the options of the database.

    Returns:
        the switch of the database; None if there is neither a master nor a slave.

    Raises:
        ConfigurationError: an entry of ``slaves`` is neither a bind key nor a usable URI, or `replicate` refuses an
            engine or an option.
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
                "REPLSWITCH_SLAVES and the options of the database need the engine of SQLALCHEMY_DATABASE_URI, "
                "which is not set. Set it to the master's address."
            )
        return None
    found = [_slave(app, db, engines, name) for name in names]
    try:
        switch = replicate(master, found, **options)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error} The master's engine is the one of SQLALCHEMY_DATABASE_URI, and the slaves' engines are those "
            "of REPLSWITCH_SLAVES. ReplSwitch(app), or init_app(app), calls replicate(): call it right after "
            "db.init_app(app)."
        ) from error
    _install(db)
    return switch


def _slave(app: Flask, db: SQLAlchemy, engines: Mapping[Any, Engine], name: Any) -> Engine:
    if not isinstance(name, str | URL) or not str(name):
        raise ConfigurationError(f"REPLSWITCH_SLAVES contains a value of type {type(name).__name__}. {_FORM}")
    if name in engines:
        return engines[name]
    if not isinstance(name, str) or "://" in name:
        return _engine_of(app, db, name)
    keys = sorted(key for key in engines if key is not None)
    near = difflib.get_close_matches(name, keys, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"Its keys: {', '.join(keys)}." if keys else "It has no keys."
    raise ConfigurationError(f'REPLSWITCH_SLAVES names "{name}", which is not a key of SQLALCHEMY_BINDS. {hint}')


def _engine_of(app: Flask, db: SQLAlchemy, uri: Any) -> Engine:
    """Make an engine with the master's options.

    Flask-SQLAlchemy itself makes it, with its defaults for each driver, in a temporary application with these settings.
    """
    settings = Flask(app.import_name, root_path=app.root_path, instance_path=app.instance_path, static_folder=None)
    settings.config.update({name: value for name, value in app.config.items() if name not in _ADDRESSES})
    settings.config["SQLALCHEMY_DATABASE_URI"] = uri
    try:
        db.init_app(settings)
    except Exception as error:
        # Leave the text of the error out: it may contain a password.
        raise ConfigurationError(
            f"A URI in REPLSWITCH_SLAVES cannot be used ({type(error).__name__}). {_FORM}"
        ) from error
    with settings.app_context():
        return db.engine


def _install(db: SQLAlchemy) -> None:
    """Make the sessions of ``db`` follow the switch. In applications without a switch, they behave as before."""
    factory: Any = db.session.session_factory
    made = factory.class_
    if not issubclass(made, RoutingSession):
        factory.class_ = type(made.__name__, (RoutingSession, made), {"__module__": made.__module__})
