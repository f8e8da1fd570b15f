"""Make Flask-SQLAlchemy's engines one replicated database, and let its sessions follow the switch."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from flask import Flask
from sqlalchemy import URL

from replswitch import ConfigurationError
from replswitch.drivers.urls import split_urls
from replswitch.sqlalchemy import RoutingSession, replicate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy import Engine

    from replswitch.sqlalchemy import EngineSwitch

_FORM: Final = (
    'It must be a list of bind keys of SQLALCHEMY_BINDS, or of URLs, such as ["slave1", "slave2"] or '
    '["mysql+pymysql://slave1.db/shop"].'
)

# The settings that are not copied to the temporary application in which `_engine_of` makes the engine of a URL.
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
        ConfigurationError: an entry of ``slaves`` is neither a bind key nor a usable URL, or `replicate` refuses an
            engine or an option.
    """
    names = [] if slaves is None else _split(slaves) if isinstance(slaves, str) else slaves
    if not isinstance(names, list | tuple):
        raise ConfigurationError(f"REPLSWITCH_SLAVES is a value of type {type(slaves).__name__}. {_FORM}")
    with app.app_context():
        engines = dict(db.engines)
    master = engines.get(None)
    if master is None:
        if names or options:
            raise ConfigurationError(
                "REPLSWITCH_SLAVES or an option of the database (such as REPLSWITCH_MAX_LAG) is set, but "
                "SQLALCHEMY_DATABASE_URI is not. Set SQLALCHEMY_DATABASE_URI to the master's address."
            )
        return None
    found = [_slave(app, db, engines, name) for name in names]
    try:
        switch = replicate(master, found, **options)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error} The master's engine is the one of SQLALCHEMY_DATABASE_URI, and the slaves' engines are those "
            "of REPLSWITCH_SLAVES. ReplSwitch(app) and init_app(app) call replicate(), so use them right after "
            "db.init_app(app)."
        ) from error
    _install(db)
    return switch


def _split(text: str) -> list[str]:
    found = split_urls(text)
    if "://" in text and not all("://" in name for name in found):
        # Do not show the entry, because it may be a part of a password.
        raise ConfigurationError(
            f"REPLSWITCH_SLAVES contains URLs, and an entry that is not a URL. {_FORM} In a password, write a space as "
            '"%20", and a comma as "%2C".'
        )
    return found


def _slave(app: Flask, db: SQLAlchemy, engines: Mapping[Any, Engine], name: Any) -> Engine:
    if not isinstance(name, str | URL) or not str(name):
        what = "an empty string" if name == "" else f"an entry of type {type(name).__name__}"
        raise ConfigurationError(f"REPLSWITCH_SLAVES contains {what}. {_FORM}")
    if name in engines:
        return engines[name]
    if not isinstance(name, str) or "://" in name:
        return _engine_of(app, db, name)
    keys = sorted(key for key in engines if key is not None)
    near = difflib.get_close_matches(name, keys, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"Its keys are: {', '.join(keys)}." if keys else "It has no keys."
    raise ConfigurationError(f'REPLSWITCH_SLAVES names "{name}", which is not a key of SQLALCHEMY_BINDS. {hint}')


def _engine_of(app: Flask, db: SQLAlchemy, uri: Any) -> Engine:
    """Make an engine for a URL, with the options of the master's engine.

    Flask-SQLAlchemy makes the engine in a temporary application with the settings of ``app``, because it has defaults
    of its own for each driver.
    """
    settings = Flask(app.import_name, root_path=app.root_path, instance_path=app.instance_path, static_folder=None)
    settings.config.update({name: value for name, value in app.config.items() if name not in _ADDRESSES})
    settings.config["SQLALCHEMY_DATABASE_URI"] = uri
    try:
        db.init_app(settings)
    except Exception as error:
        # Leave the text of the error out, because it may contain a password.
        raise ConfigurationError(
            f"A URL in REPLSWITCH_SLAVES cannot be used ({type(error).__name__}). {_FORM}"
        ) from error
    with settings.app_context():
        return db.engine


def _install(db: SQLAlchemy) -> None:
    """Make the sessions of ``db`` follow the switch. In applications without a switch, they behave as before."""
    factory: Any = db.session.session_factory
    made = factory.class_
    if not issubclass(made, RoutingSession):
        factory.class_ = type(made.__name__, (RoutingSession, made), {"__module__": made.__module__})
