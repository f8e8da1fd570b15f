"""Small functions for SQLAlchemy's engines, connections, statements and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.event import listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

#: The execution option of a master's engine that holds its switch. Engines made from the engine inherit it.
SWITCH: Final = "replswitch"

#: The option in a slave's URL that makes each address of its host a slave (F7).
RESOLVE: Final = "resolve"

#: The isolation level in which each statement is committed by itself.
AUTOCOMMIT: Final = "AUTOCOMMIT"


def options_of(master: Engine) -> dict[str, Any]:
    """Return the application's execution options of a master's engine, without replswitch's own."""
    return {name: value for name, value in master.get_execution_options().items() if name != SWITCH}


def when_disposed(engine: Engine, run: Callable[[], object]) -> None:
    """Call a function whenever an engine is disposed of."""
    # The event needs no flag of the engine, and with it each connection would look for listeners. Remove the flag
    # rather than reset it, because a false flag of the engine would hide that of the class (`listen(Engine, …)`).
    had_flag = "_has_events" in vars(engine)
    listen(engine, "engine_disposed", lambda _: run())
    if not had_flag:
        vars(engine).pop("_has_events", None)


def remove_from(session: Session, connection: Connection) -> None:
    """Remove a connection from a session's transaction and its savepoints, which continue without it."""
    transaction: Any = session._transaction
    while transaction is not None:
        for key in (connection, connection.engine):
            transaction._connections.pop(key, None)
        transaction = transaction.parent


def usable(connection: Connection | None) -> bool:
    """Return whether a connection of SQLAlchemy still holds a connection of the driver."""
    return connection is not None and not connection.closed and not connection.invalidated


def info_of(connection: Connection | None) -> dict[str, Any] | None:
    """Return the `info` of a connection of the pool; None without one, and while SQLAlchemy sets the dialect up."""
    if connection is None or not usable(connection):
        return None
    try:
        return connection.info
    except NotImplementedError:  # on the first connection of an engine
        return None


def level_of(bind: Connection | Engine) -> Any:
    """Return the isolation level of transactions; None unless `create_engine` or an execution option sets it."""
    # Each statement on the master runs this, so it reads the options without a method.
    by_engine = bind.dialect._on_connect_isolation_level  # create_engine(isolation_level=…)
    return bind._execution_options.get("isolation_level", by_engine)
