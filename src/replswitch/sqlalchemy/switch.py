"""The switch of a replicated database of SQLAlchemy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from replswitch.engine.database import Database
from replswitch.sqlalchemy.pooled import SWITCH
from replswitch.state import Switch

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from replswitch.drivers import Driver
    from replswitch.engine.options import DatabaseOptions
    from replswitch.engine.servers import Servers


class EngineSwitch(Switch):
    """A replicated database: its switch, and the engines of its servers. `replicate` makes it.

    Args:
        name: what the database is called in markers.
        servers: its servers, each with its engine as ``source``. A database in memory has no slaves.
        driver: of all servers.
        options: how it is served.

    Attributes:
        servers: likewise.
        driver: likewise.
        database: chooses the side, and records what is written.
    """

    records_writes: ClassVar[bool] = True

    def __init__(self, name: str, servers: Servers, driver: Driver, options: DatabaseOptions) -> None:
        self.servers = servers
        self.driver = driver
        self.database = Database(self, name, servers, options)

    @property
    def master(self) -> Engine:
        """The master's engine."""
        engine: Engine = self.servers.master.source
        return engine

    @property
    def master_name(self) -> str:
        """What people know the master by."""
        return self.servers.master.name

    @property
    def slaves(self) -> tuple[Engine, ...]:
        """The slaves' engines; without slaves, that of the master's read-only connections (S10)."""
        return tuple(server.source for server in self.servers.slaves)

    def __repr__(self) -> str:
        names = ", ".join(server.name for server in self.servers.slaves)
        return f"<EngineSwitch {self.database.name!r}: master {self.master_name}, slaves {names or 'none'}>"


def switch_of(engine: Engine) -> EngineSwitch | None:
    """Return the switch of an engine that `replicate` knows as a master, or that was made from one."""
    return engine.get_execution_options().get(SWITCH)
