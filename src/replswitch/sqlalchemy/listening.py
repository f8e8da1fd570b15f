"""What the engines of a replicated database tell: statements that have run, and statements that have failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from replswitch.engine import outcome
from replswitch.engine.attempt import Attempt
from replswitch.engine.route import Route
from replswitch.sqlalchemy.pooled import LINK, ROUTE, PoolPort
from replswitch.sqlalchemy.route import route_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

    from replswitch.sqlalchemy.switch import EngineSwitch


def listen_to_slave(engine: Engine) -> None:
    """Hand on what happens on the connections of a slave's engine to the sessions that have them."""

    def failed(context: ExceptionContext) -> None:
        _failed(context)

    event.listen(engine, "after_cursor_execute", _ran)
    event.listen(engine, "handle_error", failed)


def listen_to_master(engine: Engine, switch: EngineSwitch) -> None:
    """Do the same for the master's engine. Its faults count outside sessions, too."""
    database, driver, server = switch.database, switch.driver, switch.servers.master

    def failed(context: ExceptionContext) -> None:
        connection, error = context.connection, context.original_exception
        if context.is_pre_ping or not isinstance(error, driver.module.Error):
            return
        if connection is None:
            if driver.is_gone(error):
                outcome.report_lost_master(database.name, server, error)
                raise outcome.no_master(server, error) from error
        elif not _failed(context) and not connection.closed and not connection.invalidated:
            port = PoolPort(driver)
            try:
                Route(database, port).failed(Attempt(repeatable=False), connection.info[LINK], error)
            finally:
                context.is_disconnect = context.is_disconnect or port.dropped is not None

    event.listen(engine, "after_cursor_execute", _ran)
    event.listen(engine, "handle_error", failed)


def _ran(connection: Connection, cursor: Any, *about: Any) -> None:
    reference = connection.info.get(ROUTE)
    route = None if reference is None else reference()
    if route is not None:
        route.ran(connection, cursor, about[2])


def _failed(context: ExceptionContext) -> bool:
    route = route_of(context.connection)
    return route is not None and route.failed(context)
