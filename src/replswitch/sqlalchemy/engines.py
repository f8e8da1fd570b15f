"""`replicate`: which engine is the master's, and which are its slaves'; and the switch of their database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool, QueuePool

from replswitch.checking import is_number, require, require_name
from replswitch.decision import MASTER, SLAVE
from replswitch.drivers.unknown import driver_of
from replswitch.engine.database import Database
from replswitch.engine.options import database_options
from replswitch.engine.servers import Server, Servers
from replswitch.errors import ConfigurationError
from replswitch.sqlalchemy.opening import MasterOpener, Opener, settings_of
from replswitch.sqlalchemy.pooled import SWITCH, SlaveEngine, options_of
from replswitch.state import Switch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from replswitch.drivers import Driver
    from replswitch.engine.options import DatabaseOptionNames, DatabaseOptions

# So the engine of a slave is known by its execution options.
_SLAVE_OF = "replswitch.slave_of"


class EngineSwitch(Switch):
    """A replicated database: its switch, and the engines of its servers. `replicate` makes it.

    Args:
        name: what people call the database.
        set_name: what its replicated set is called in markers.
        servers: its servers, each with its engine as ``source``. A database in memory has no slaves.
        driver: of all servers.
        options: how it is served.

    Attributes:
        servers: likewise.
        driver: likewise.
        database: chooses the side, and records what is written.
    """

    records_writes: ClassVar[bool] = True

    def __init__(self, name: str, set_name: str, servers: Servers, driver: Driver, options: DatabaseOptions) -> None:
        self.servers = servers
        self.driver = driver
        self.database = Database(self, name, servers, options, set_name)

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


def replicate(
    master: Engine | AsyncEngine,
    slaves: Sequence[Engine | AsyncEngine] = (),
    *,
    name: str | None = None,
    weights: Sequence[float] | None = None,
    **options: Unpack[DatabaseOptionNames],
) -> EngineSwitch:
    """Tell replswitch which engines are a master and its slaves. From now on every `RoutingSession` knows.

    Call it where the engines are made, before they are used. Their pools and settings stay; their connections are
    opened by replswitch, so that they tell of what is written, and those of slaves read-only.

    Args:
        master: the master's engine (or an ``AsyncEngine``).
        slaves: the slaves' engines, of the same dialect and driver. Without slaves, the master serves slave state,
            through a second, read-only engine that is made from its address (S10).
        name: the name of the replicated set, in markers and in messages. By default markers have a digest of the
            address in the URL of the master's engine, which all databases of the master share; messages have the
            database's own name. Needed where the address is not in the URL but in ``connect_args``.
        weights: each slave's share of the reads, compared with the others'; 1 by default.
        options: see `replswitch.engine.options.DatabaseOptions`.

    Returns:
        the switch of this database, with ``use_master()``, ``use_slave()``, ``revert()`` and ``state``, and with the
        engines as ``master`` and ``slaves``.

    Raises:
        ConfigurationError: an engine is none, is given twice, is replicated already, is in use, or does not fit; or an
            option is of the wrong kind.
    """
    checked = database_options(replicate, options)
    require_name(name)
    is_list = isinstance(slaves, Sequence) and not isinstance(slaves, str | bytes)
    require(is_list, "slaves", type(slaves), "a list of engines: [create_engine(…)]")
    engines: list[Any] = [getattr(each, "sync_engine", each) for each in (master, *slaves)]
    engine, *others = engines
    for number, each in enumerate(engines):
        wrong = _why_not(each, engines[:number])
        if wrong is not None:
            raise ConfigurationError(f"The engine of {f'slave number {number}' if number else 'the master'} {wrong}")
    settings = {each: settings_of(each) for each in engines}
    driver = driver_of(engine.dialect, settings[engine])
    require(not (others and driver.in_memory), "slaves", others, "left out for a database in memory")
    shares = _weights(weights, len(others))
    without_lag = f"left out with {engine.dialect.driver}, through which replswitch asks no server how far behind it is"
    require(checked.max_lag is None or driver.opens_connections, "max_lag", checked.max_lag, without_lag)
    for each, its_settings in settings.items():
        driver.check(its_settings, f"the engine of {each.url.host or each.url.database}")
    for each in engines:
        if isinstance(each.pool, QueuePool):
            each.dispose()  # what was opened before, and not by us
    server = Server(driver.address(settings[engine]), MASTER, engine)
    opener = MasterOpener(driver, server)
    pairs = zip(others, shares, strict=True)
    found = tuple(_slave(slave, driver, driver.address(settings[slave]), share) for slave, share in pairs)
    master_read_only = Server(server.name, SLAVE)  # nothing is read through it from a database in memory
    if not driver.in_memory:
        # Beside slaves it is seldom used, and a connection that is kept may lead to a former master.
        stand_in = create_engine(
            engine.url,
            echo=engine.echo,
            execution_options=options_of(engine),
            hide_parameters=engine.hide_parameters,
            poolclass=NullPool if others else None,
        )
        master_read_only = _slave(stand_in, driver, server.name, 1, opener)
        found = found or (master_read_only,)
    servers = Servers(server, found, master_read_only, bool(others))
    label = name or driver.schema(settings[engine]) or server.name
    switch = EngineSwitch(label, name or driver.set_name(settings[engine]), servers, driver, checked)
    opener.database = switch.database
    opener.listen(engine)
    engine.update_execution_options(**{SWITCH: switch})
    return switch


def _why_not(engine: object, before: list[Engine]) -> str | None:
    """Return what is wrong with an engine, as the end of a sentence; None if nothing is."""
    if not isinstance(engine, Engine):
        return f"is a value of type {type(engine).__name__}, and none. Make one with sqlalchemy.create_engine()."
    if engine in before:
        return "was given before. Give an engine of its own to each server; without slaves leave them out."
    if switch_of(engine) is not None or _SLAVE_OF in engine.get_execution_options():
        return "is part of a replicated database already. Call replicate() once, where the engines are made."
    given, wanted = (f"{each.dialect.name}+{each.dialect.driver}" for each in (engine, (before or [engine])[0]))
    if given != wanted:
        return f"is of {given}, and the master's of {wanted}. Make it with the same."
    pool = engine.pool
    if isinstance(pool, QueuePool) and (pool.checkedout() or (engine.dialect.is_async and pool.checkedin())):
        return (
            "has connections that only their event loop can close, or one that is in use. Call replicate() where the "
            "engines are made, before anything uses them, or say `await engine.dispose()` first."
        )
    return None


def _weights(weights: Any, number: int) -> list[float]:
    shares = [1.0] * number if weights is None else weights
    are_numbers = isinstance(shares, Sequence) and all(is_number(share) and share > 0 for share in shares)
    require(are_numbers and len(shares) == number, "weights", weights, "a list with a number above 0 for each slave")
    return list(shares)


def _slave(engine: Engine, driver: Driver, name: str, weight: float, master: Opener | None = None) -> Server:
    """Return a server over the links of an engine, which refuse writes from now on."""
    server = Server(name, SLAVE, weight=weight)
    Opener(driver, server, master).listen(engine)
    engine.update_execution_options(**{_SLAVE_OF: name})
    server.source = SlaveEngine(engine, {})
    return server
