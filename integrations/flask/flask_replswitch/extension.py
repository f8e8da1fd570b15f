"""The extension: binds an application to the middleware, to its Flask-SQLAlchemy, and to the command."""

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
from replswitch.report import Asked, servers_of
from replswitch.state import stack
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flask import Flask
    from sqlalchemy import Engine

    from flask_replswitch.conf import Configured
    from replswitch.request.policy import RequestPolicy
    from replswitch.sqlalchemy import EngineSwitch

#: Where Flask keeps an application's extensions, ours and Flask-SQLAlchemy.
NAME: Final = "replswitch"
SQLALCHEMY: Final = "sqlalchemy"

# What is set for Flask-SQLAlchemy, one or the other.
_ADDRESSES: Final = ("SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_BINDS")


@dataclass(frozen=True, slots=True)
class Registered:
    """What an application got, in ``app.extensions["replswitch"]``.

    Attributes:
        middleware: in ``app.wsgi_app``.
        database: the switch of Flask-SQLAlchemy's database; None without Flask-SQLAlchemy.
        servers: those of each database, for ``flask replswitch``.
    """

    middleware: ReplicationMiddleware
    database: EngineSwitch | None
    servers: Mapping[str, list[Asked]]


class ReplSwitch:
    """Switches the databases of Flask applications by the method of each request, and reads and writes markers.

    Once for an application, when it is configured and Flask-SQLAlchemy, if it is used, knows it: ``ReplSwitch(app)``;
    or in a factory, ``ReplSwitch()`` and ``init_app(app)``. Options are in ``app.config``, as ``REPLSWITCH_…``.

    Args:
        app: the application; None to name it later.
        databases: what `replswitch.connect` or `replswitch.sqlalchemy.replicate` returned, for ``flask replswitch``
            to show. They switch all the same without.

    Raises:
        ConfigurationError: see `init_app`.
    """

    def __init__(self, app: Flask | None = None, *, databases: Iterable[Switch] = ()) -> None:
        self._databases = _checked(databases)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register an application. Nothing of it is kept here: any number of them may come.

        Args:
            app: configured, with its secret key; ``db.init_app(app)`` has been called, if it uses Flask-SQLAlchemy.

        Raises:
            ConfigurationError: it is registered already, has no secret key, an option is unknown or of the wrong kind,
                a slave is none, or a view is decorated in the wrong order.
        """
        if NAME in app.extensions:
            raise ConfigurationError(
                f'The application "{app.name}" has a ReplSwitch already. Call ReplSwitch(app), or init_app(app), once '
                "for each application."
            )
        options = configured(app)
        middleware = ReplicationMiddleware(app.wsgi_app, secrets_of(app), **options.requests)
        views = WatchedViews(app.view_functions)
        database = _sqlalchemy(app, options)  # last, for what it changes stays changed
        app.view_functions = views
        app.wsgi_app = middleware  # type: ignore[method-assign]  # the way that Flask's manual names
        app.extensions[NAME] = Registered(middleware, database, _servers(filter(None, (database, *self._databases))))
        # Before the application's own functions, which may read and write.
        app.url_value_preprocessors.setdefault(None, []).insert(0, partial(_reach, middleware.policy))
        app.cli.commands.setdefault("replswitch", show)


def _reach(policy: RequestPolicy, *_: Any) -> None:
    """Let the master serve a rule whose safe requests have written (R5)."""
    running, rule = stack(), request.url_rule
    safe = None if running is None else running.scope.safe_request
    if running is not None and safe is not None and safe.endpoints is policy.endpoints and rule is not None:
        safe.endpoint = current_app.name, rule.rule
        policy.reach(running.scope, safe.endpoint)


def _checked(databases: Any) -> tuple[Switch, ...]:
    if isinstance(databases, Switch):
        raise ConfigurationError("`databases` is one database. It must be a list of them: databases=[db].")
    given = tuple(databases)
    for each in given:
        if not isinstance(each, Connection) and not hasattr(each, "master_name"):
            raise ConfigurationError(
                f"`databases` has an object of type {type(each).__name__} in it. It must be a list of what "
                "replswitch.connect() or replswitch.sqlalchemy.replicate() returned; Flask-SQLAlchemy is found by "
                "itself."
            )
    return given


def _servers(databases: Iterable[Any]) -> dict[str, list[Asked]]:
    """Return the servers of each database, by a name for people."""
    found: dict[str, list[Asked]] = {}
    for database in databases:
        name = database.database.name
        servers = servers_of(database) if isinstance(database, Connection) else _servers_of_engines(database)
        same = sum(other.partition(" (")[0] == name for other in found)
        found[f"{name} ({same + 1})" if same else name] = servers
    return found


def _servers_of_engines(switch: EngineSwitch) -> list[Asked]:
    driver = switch.driver
    return [
        Asked(server.state, server.name, partial(_open, server.source), driver.module.Error, engine=driver.engine)
        for server in (switch.servers.master, *switch.servers.slaves)
    ]


def _open(engine: Engine, timeout: float) -> Any:
    """Open a connection by the engine's settings, its own time-outs among them, but outside its pool."""
    connection = engine.pool.recreate().connect()
    connection.detach()
    return connection.dbapi_connection


def _sqlalchemy(app: Flask, options: Configured) -> EngineSwitch | None:
    """Return the switch of the application's Flask-SQLAlchemy, None where it has none."""
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
            f'{given[0]} is set, and no Flask-SQLAlchemy is registered with the application "{app.name}". Call '
            "db.init_app(app) before ReplSwitch(app) or init_app(app). What replswitch.connect() opens has its slaves "
            "and options as arguments."
        )
    return None
