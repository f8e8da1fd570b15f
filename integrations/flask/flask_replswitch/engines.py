"""The servers of a database that SQLAlchemy's engines lead to, for ``flask replswitch``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from replswitch import MASTER, SLAVE, State
from replswitch.standing import Asked

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from replswitch.sqlalchemy import EngineSwitch


def servers_of_engines(switch: EngineSwitch) -> list[Asked]:
    """Return the servers of a replicated database, the master first."""
    slaves = [_asked(SLAVE, server.name, server.engine) for server in switch.servers]
    return [_asked(MASTER, switch.master_name, switch.master), *slaves]


def _asked(state: State, name: str, engine: Engine) -> Asked:
    return Asked(state, name, partial(_open, engine), engine.dialect.loaded_dbapi.Error)


def _open(engine: Engine, timeout: float) -> Any:
    """Open a connection by the engine's settings, its own time-outs among them, but outside its pool."""
    connection = engine.pool.recreate().connect()
    connection.detach()
    return connection.dbapi_connection
