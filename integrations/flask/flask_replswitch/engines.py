"""Databases that SQLAlchemy's engines lead to: how they are named, and asked for `flask replswitch`."""

from __future__ import annotations

from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from replswitch import MASTER, SLAVE
from replswitch.standing import Asked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine


def servers_of_engines(master: Engine, slaves: Iterable[Engine]) -> list[Asked]:
    """Return the servers that engines lead to, the master first."""
    return [
        Asked(state, address(engine), partial(_open, engine), engine.dialect.loaded_dbapi.Error)
        for state, engine in ((MASTER, master), *((SLAVE, slave) for slave in slaves))
    ]


def address(engine: Engine) -> str:
    """Return the host with its port, where that is not 3306, or the name of a file."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return PurePath(url.database or ":memory:").name
    port = "" if url.port in (None, 3306) else f":{url.port}"
    return f"{url.host or 'localhost'}{port}"


def _open(engine: Engine, timeout: float) -> Any:
    """Open a connection of its own, by the engine's settings; the pool's may be old, and others wait for them."""
    from sqlalchemy import event  # noqa: PLC0415 - Flask applications without SQLAlchemy import this module

    sqlite = engine.dialect.name == "sqlite"
    seconds = {} if sqlite else {"connect_timeout": int(timeout), "read_timeout": int(timeout)}

    def connect(dialect: Any, record: object, args: list[Any], settings: dict[str, Any]) -> Any:
        return dialect.connect(*args, **{**settings, **seconds})

    event.listen(engine, "do_connect", connect, insert=True)
    pool = engine.pool.recreate()
    try:
        connection = pool.connect()
        connection.detach()
        return connection.dbapi_connection
    finally:
        event.remove(engine, "do_connect", connect)
