"""The extension. It adds the middleware, the command ``flask replswitch`` and the switching to an application."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import current_app, request

from flask_replswitch.command import show
from flask_replswitch.conf import PREFIX, SLAVES, configured, secrets_of
from flask_replswitch.views import WatchedViews
from replswitch import ConfigurationError, Connection, Switch
from replswitch.report import Asked, names_without_address, servers_of
from replswitch.state import stack
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask
    from sqlalchemy import Engine

    from flask_replswitch.conf import Configured
    from replswitch.request.policy import RequestPolicy
    from replswitch.sqlalchemy import EngineSwitch

#: The keys in `app.extensions`: ours, and Flask-SQLAlchemy's.
NAME: Final = "replswitch"
SQLALCHEMY: Final = "sqlalchemy"

# The settings of Flask-SQLAlchemy. An application that uses it has at least one of them.
_ADDRESSES: Final = ("SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_BINDS")


@dataclass(frozen=True, slots=True)
class Registered:
    """The parts of ReplSwitch in one application, in ``app.extensions["replswitch"]``.

    Attributes:
        middleware: the middleware, which is in ``app.wsgi_app``.
        database: the switch of Flask-SQLAlchemy's database; None without Flask-SQLAlchemy.
        databases: all databases that ``flask replswitch`` shows.
    """

    middleware: ReplicationMiddleware
    database: EngineSwitch | None
    databases: tuple[Switch, ...]

    def servers(self) -> dict[str, list[Asked]]:
        """Look up the servers of each database, and return them by the name of the database in messages."""
        return _servers(self.databases)


class ReplSwitch:
    """Switches the databases of Flask applications by the HTTP method of each request, and reads and writes markers.

    Call ``ReplSwitch(app)`` once for each application, after configuring it and after ``db.init_app(app)``, if it uses
    Flask-SQLAlchemy. In a factory, use ``ReplSwitch()`` and ``init_app(app)``. The options are ``REPLSWITCH_…`` in
    ``app.config``.

    Args:
        app: the application; None to register it later with `init_app`.
        databases: return values of `replswitch.connect` or `replswitch.sqlalchemy.replicate`, which
            ``flask replswitch`` shows. Databases that are not in this list switch as well.

    Raises:
        ConfigurationError: see `init_app`.
    """

    def __init__(self, app: Flask | None = None, *, databases: Iterable[Switch] = ()) -> None:
        self._databases = _checked(databases)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register an application. The extension keeps no reference to it, so it can register several applications.

        Args:
            app: the application, configured and with a secret key. If it uses Flask-SQLAlchemy, call
                ``db.init_app(app)`` first.

        Raises:
            ConfigurationError: the application is registered already or has no secret key; an option is unknown or of
                the wrong kind; a slave is not usable; or a view is decorated in the wrong order.
        """
        if NAME in app.extensions:
            raise ConfigurationError(
                f'The application "{app.name}" has a ReplSwitch already. Call ReplSwitch(app), or init_app(app), once '
                "for each application."
            )
        options = configured(app)
        middleware = ReplicationMiddleware(app.wsgi_app, secrets_of(app), **options.requests)
        views = WatchedViews(app.view_functions)
        database = _sqlalchemy(app, options)  # last, because its changes cannot be undone
        app.view_functions = views
        app.wsgi_app = middleware  # type: ignore[method-assign]  # as Flask's manual recommends
        databases = (*([] if database is None else [database]), *self._databases)
        app.extensions[NAME] = Registered(middleware, database, databases)
        # Insert it first, because the application's own functions may read and write.
        app.url_value_preprocessors.setdefault(None, []).insert(0, partial(_reach, middleware.policy))
        app.cli.commands.setdefault("replswitch", show)


def _reach(policy: RequestPolicy, *_: Any) -> None:
    """Use the master if earlier safe requests to the same URL rule have written (R5)."""
    running, rule = stack(), request.url_rule
    safe = None if running is None else running.scope.safe_request
    if running is not None and safe is not None and safe.endpoints is policy.endpoints and rule is not None:
        safe.endpoint = current_app.name, rule.rule
        policy.reach(running.scope, safe.endpoint)


def _checked(databases: Any) -> tuple[Switch, ...]:
    if isinstance(databases, Switch):
        raise ConfigurationError("`databases` is one database. It must be a list of databases, such as databases=[db].")
    given = tuple(databases)
    for each in given:
        if not isinstance(each, Connection) and not hasattr(each, "master_name"):
            raise ConfigurationError(
                f"`databases` contains an object of type {type(each).__name__}. It must be a list of the return values "
                "of replswitch.connect() or replswitch.sqlalchemy.replicate(). Leave Flask-SQLAlchemy out, because it "
                "is found automatically."
            )
    return given


def _servers(databases: Iterable[Any]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for database in databases:
        name = database.database.name
        servers = servers_of(database) if isinstance(database, Connection) else _servers_of_engines(database)
        same = sum(other.partition(" (")[0] == name for other in found)
        found[f"{name} ({same + 1})" if same else name] = servers
    return found


def _servers_of_engines(switch: EngineSwitch) -> list[Asked]:
    driver, servers = switch.driver, switch.servers
    unresolved = names_without_address(servers)
    found = [
        Asked(server.state, server.name, partial(_open, server.source), driver.module.Error, engine=driver.engine)
        for server in (servers.master, *servers.slaves)
    ]
    return found + unresolved


def _open(engine: Engine, timeout: float) -> Any:
    """Open a connection outside the engine's pool, with the engine's settings, including the engine's time-outs."""
    connection = engine.pool.recreate().connect()
    connection.detach()
    return connection.dbapi_connection


def _sqlalchemy(app: Flask, options: Configured) -> EngineSwitch | None:
    """Return the switch of the application's Flask-SQLAlchemy; None if the application does not use it."""
    db = app.extensions.get(SQLALCHEMY)
    if db is not None:
        from flask_replswitch.alchemy import replicated  # noqa: PLC0415 - not every application has SQLAlchemy

        return replicated(app, db, options.slaves, options.database)
    given = [] if options.slaves is None else [SLAVES]
    given += [PREFIX + name.upper() for name in options.database]
    if "flask_sqlalchemy" in sys.modules:
        given += [name for name in _ADDRESSES if app.config.get(name)]
    if given:
        raise ConfigurationError(
            f'{given[0]} is set, but no Flask-SQLAlchemy is registered with the application "{app.name}". Call '
            "db.init_app(app) before ReplSwitch(app) or init_app(app). If you use replswitch.connect(), give the "
            "slaves and the options to this function."
        )
    return None
