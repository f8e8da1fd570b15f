"""The servers of a database that SQLAlchemy's engines lead to, for ``flask replswitch``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from replswitch.report import Asked

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from replswitch.sqlalchemy import EngineSwitch


def servers_of_engines(switch: EngineSwitch) -> list[Asked]:
    """Return the servers of a replicated database, the master first."""
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
