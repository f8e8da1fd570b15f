"""The switch of a replicated database of SQLAlchemy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from replswitch.database import Database
from replswitch.sqlalchemy.servers import SWITCH
from replswitch.state import Switch

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from replswitch.drivers import Driver
    from replswitch.options import DatabaseOptions
    from replswitch.sqlalchemy.servers import SlaveServer


class EngineSwitch(Switch):
    """A replicated database: its switch, and the engines of its servers. `replicate` makes it.

    Attributes:
        master: the master's engine.
        slaves: the slaves' engines; without slaves, the one that stands in (S10), or none for a database in memory.
        servers: the slaves, with their names and weights.
        reader: the master, by an engine whose connections refuse writes; for reads that may run nowhere else. None for
            a database in memory.
        master_name: what people know the master by.
        driver: of all servers.
        database: chooses the side, and records what is written.
    """

    records_writes: ClassVar[bool] = True

    def __init__(
        self,
        master: Engine,
        master_name: str,
        servers: tuple[SlaveServer, ...],
        reader: SlaveServer | None,
        driver: Driver,
        options: DatabaseOptions,
        *,
        name: str,
        has_slaves: bool,
    ) -> None:
        self.master = master
        self.master_name = master_name
        self.servers = servers
        self.reader = reader
        self.driver = driver
        self.database = Database(self, name, options=options, has_slaves=has_slaves)

    @property
    def slaves(self) -> tuple[Engine, ...]:
        """The slaves' engines."""
        return tuple(server.engine for server in self.servers)

    def __repr__(self) -> str:
        names = ", ".join(server.name for server in self.servers)
        return f"<EngineSwitch {self.database.name!r}: master {self.master_name}, slaves {names or 'none'}>"


def switch_of(engine: Engine) -> EngineSwitch | None:
    """Return the switch of an engine that `replicate` knows as a master, or that was made from one."""
    return engine.get_execution_options().get(SWITCH)
