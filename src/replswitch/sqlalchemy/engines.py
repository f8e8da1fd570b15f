"""`replicate` binds the master's engine and the slaves' engines together, and makes the switch of their database."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import QueuePool

from replswitch.checking import is_number, require, require_name
from replswitch.decision import MASTER, SLAVE
from replswitch.drivers.dialects import driver_of
from replswitch.engine.database import Database
from replswitch.engine.options import database_options
from replswitch.engine.resolving import ResolvingServers
from replswitch.engine.servers import Server, Servers
from replswitch.errors import ConfigurationError
from replswitch.sqlalchemy.addresses import behind_name, close_idle, resolves, wait_in_task
from replswitch.sqlalchemy.elsewhere import watch_other_engines
from replswitch.sqlalchemy.facts import SWITCH, level_of, options_of, when_disposed
from replswitch.sqlalchemy.opening import IS_REPLICATED, OTHER_POOL, MasterOpener, Opener, settings_of
from replswitch.sqlalchemy.pooled import SlaveEngine
from replswitch.sqlalchemy.running import watch_statements
from replswitch.state import Switch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from replswitch.drivers import Driver
    from replswitch.engine.options import DatabaseOptionNames, DatabaseOptions
    from replswitch.engine.resolving import Name


class EngineSwitch(Switch):
    """A replicated database: its switch, and the engines of its servers. `replicate` makes it.

    Args:
        name: the name of the database in messages.
        set_name: the name of its replicated set in markers.
        servers: its servers, each with its engine as ``source``. A database in memory has no slaves.
        driver: the driver of all servers.
        options: the options of the database.
        engines: the engines of the master and the slaves, and that of the master's read-only connections (S10, R6). All
            slaves behind one name (F7) have one engine in this list.

    Attributes:
        servers: see the argument.
        driver: see the argument.
        engines: see the argument.
        database: chooses between the master and the slaves, and records the writes.
    """

    records_writes: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        set_name: str,
        servers: Servers,
        driver: Driver,
        options: DatabaseOptions,
        engines: tuple[Engine, ...],
    ) -> None:
        self.servers = servers
        self.driver = driver
        self.engines = engines
        self.database = Database(self, name, servers, options, set_name)

    @property
    def master(self) -> Engine:
        """The master's engine."""
        engine: Engine = self.servers.master.source
        return engine

    @property
    def master_name(self) -> str:
        """The master's name in messages."""
        return self.servers.master.name

    @property
    def slaves(self) -> tuple[Engine, ...]:
        """The slaves' engines; without slaves, the engine of the master's read-only connections (S10).

        Slaves behind a name (F7) are included while their addresses are known.
        """
        return tuple(server.source for server in self.servers.slaves)

    def __repr__(self) -> str:
        names = ", ".join(server.name for server in self.servers.slaves)
        return f"<EngineSwitch {self.database.name!r}: master {self.master_name}, slaves {names or 'none'}>"


def switch_of(engine: Engine) -> EngineSwitch | None:
    """Return the switch of a master's engine given to `replicate`, or of an engine made from it; None for others."""
    return engine.get_execution_options().get(SWITCH)


def replicate(
    master: Engine | AsyncEngine,
    slaves: Sequence[Engine | AsyncEngine] = (),
    *,
    name: str | None = None,
    weights: Sequence[float] | None = None,
    **options: Unpack[DatabaseOptionNames],
) -> EngineSwitch:
    """Declare which engines are a master and its slaves. From now on, the switch applies to every `RoutingSession`.

    Call it where the engines are made, before they are used. They keep their pools and settings. replswitch opens
    their connections, so that it learns of each write, and so that connections to slaves are read-only.

    Args:
        master: the master's engine (or an ``AsyncEngine``).
        slaves: the slaves' engines, of the same dialect and driver. Without slaves, the master serves slave state
            through a second, read-only engine that is made from its address (S10). With ``resolve=true`` in the URL of
            an engine, each address of its host is a slave, with a pool like that of the engine (F7).
        name: the name of the replicated set in markers and messages. By default, messages use the database's own
            name. Markers use a digest of the address in the URL of the master's engine, so all databases on the master
            have the same digest. Give a name if the address is not in the URL but in ``connect_args``.
        weights: each slave's share of the reads, relative to the other slaves; the default is 1.
        options: see `replswitch.engine.options.DatabaseOptions`.

    Returns:
        the switch of this database, with ``use_master()``, ``use_slave()``, ``revert()`` and ``state``, and with the
        engines as ``master`` and ``slaves``.

    Raises:
        ConfigurationError: a value is not an engine; an engine is given twice, replicated already, in use, or of
            another dialect or driver than the master's; a slave cannot have its isolation level; an option is of the
            wrong kind; or ``resolve`` is where it cannot work.
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
    if resolves(engine, "master"):
        raise ConfigurationError(
            'The option "resolve" in the URL of the master is true. A master has one address at a time. Leave the'
            " option out: each new connection to the master looks its host up."
        )
    settings = {each: settings_of(each) for each in engines}
    driver = driver_of(engine.dialect, settings[engine]).for_database()
    require(not (others and driver.in_memory), "slaves", others, "left out for a database in memory")
    shares = _weights(weights, len(others))
    without_lag = f"left out with {engine.dialect.driver}: replswitch does not measure the lag with this driver"
    require(checked.max_lag is None or driver.opens_connections, "max_lag", checked.max_lag, without_lag)
    for number, each in enumerate(others, start=1):
        if not driver.has_serializable_slaves and level_of(each) == "SERIALIZABLE":
            raise ConfigurationError(
                f"The engine of slave number {number} has the isolation level SERIALIZABLE, which slaves of"
                f' {engine.dialect.name} refuse. Give create_engine() isolation_level="REPEATABLE READ" for the slaves.'
            )
    for each, its_settings in settings.items():
        driver.check(its_settings, f"the engine of {each.url.host or each.url.database}")
    hosts = {
        each: driver.host_to_look_up(settings[each], f'The option "resolve" in the URL of slave number {number}')
        for number, each in enumerate(others, start=1)
        if resolves(each, f"slaves[{number - 1}]")
    }
    for each in engines:
        if isinstance(each.pool, QueuePool):
            # Close connections that were opened before, and not by replswitch. The pool stays, because Engine.dispose()
            # would give this engine a new one, and an engine that shares the pool would keep the old one.
            each.pool.dispose()
    server = Server(driver.address(settings[engine]), MASTER, engine)
    opener = MasterOpener(driver, server)
    found: list[Server | Name] = []
    known = [engine]
    for each, share in zip(others, shares, strict=True):
        slave = _slave(each, driver, driver.address(settings[each]), share)
        found.append(behind_name(each, *hosts[each], share) if each in hosts else slave)
        known.append(slave.source)
    master_read_only = Server(server.name, SLAVE)  # a database in memory never uses this server
    if not driver.in_memory:
        stand_in: Any = _maker(engine)(
            engine.url,
            echo=engine.echo,
            execution_options=options_of(engine),
            hide_parameters=engine.hide_parameters,
            **_pool_of(engine),
            **_settings_of(engine),
        )
        read_only = getattr(stand_in, "sync_engine", stand_in)
        when_disposed(engine, read_only.dispose)  # in a forked child, it leaves the connections of the parent open
        master_read_only = _slave(read_only, driver, server.name, 1, opener)
        found = found or [master_read_only]
        known.append(master_read_only.source)
    fixed = tuple(each for each in found if isinstance(each, Server))
    servers = Servers(server, fixed, master_read_only, bool(others))
    if hosts:
        wait = wait_in_task if engine.dialect.is_async else Event.wait
        servers = ResolvingServers(server, found, master_read_only, close_idle, wait)
    label = name or driver.schema(settings[engine]) or server.name
    switch = EngineSwitch(label, name or driver.set_name(settings[engine]), servers, driver, checked, tuple(known))
    opener.database = switch.database
    opener.listen(engine)
    watch_other_engines()
    watch_statements()
    engine.update_execution_options(**{SWITCH: switch})
    return switch


def _maker(engine: Engine) -> Callable[..., Engine | AsyncEngine]:
    """Return the function of SQLAlchemy that makes engines of this kind, which is `create_async_engine` for asyncio."""
    if not engine.dialect.is_async:
        return create_engine
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - it needs greenlet

    return create_async_engine


def _pool_of(engine: Engine) -> dict[str, Any]:
    """Return the arguments of `create_engine` for a second pool like that of an engine, to serve as many requests."""
    pool: Any = engine.pool
    if not isinstance(pool, QueuePool):
        return {"poolclass": type(pool)}
    return {
        "poolclass": type(pool),
        "pool_size": pool.size(),
        "max_overflow": pool._max_overflow,
        "pool_timeout": pool.timeout(),
        "pool_recycle": pool._recycle,
        "pool_use_lifo": pool._pool.use_lifo,
    }


def _settings_of(engine: Engine) -> dict[str, Any]:
    """Return the isolation level and the JSON functions of an engine, as arguments of `create_engine`."""
    names = {
        "isolation_level": "_on_connect_isolation_level",
        "json_serializer": "_json_serializer",
        "json_deserializer": "_json_deserializer",
    }
    found = {name: getattr(engine.dialect, attribute, None) for name, attribute in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _why_not(engine: object, before: list[Engine]) -> str | None:
    """Return what is wrong with an engine, as the end of a sentence; None if nothing is."""
    if not isinstance(engine, Engine):
        return f"is a value of type {type(engine).__name__}. Make an engine with sqlalchemy.create_engine()."
    if any(engine.dialect is each.dialect for each in before):  # the dialect's methods are replaced only once
        return "was given twice. Give each server an engine of its own. If there are no slaves, leave `slaves` out."
    if hasattr(engine.dialect, IS_REPLICATED):
        return "is part of a replicated database already. Call replicate() once, where the engines are made."
    given, wanted = (f"{each.dialect.name}+{each.dialect.driver}" for each in (engine, (before or [engine])[0]))
    if given != wanted:
        return f"uses {given}, and the master's engine uses {wanted}. Make both with the same dialect and driver."
    pool = engine.pool
    if pool._dialect is not engine.dialect:
        return OTHER_POOL
    if isinstance(pool, QueuePool) and (pool.checkedout() or (engine.dialect.is_async and pool.checkedin())):
        return (
            "has a connection in use, or connections that only their event loop can close. Call replicate() where the "
            "engines are made, before anything uses them, or call `await engine.dispose()` first."
        )
    return None


def _weights(weights: Any, number: int) -> list[float]:
    shares = [1.0] * number if weights is None else weights
    are_numbers = isinstance(shares, Sequence) and all(is_number(share) and share > 0 for share in shares)
    require(are_numbers and len(shares) == number, "weights", weights, "a list with a number above 0 for each slave")
    return list(shares)


def _slave(engine: Engine, driver: Driver, name: str, weight: float, master: Opener | None = None) -> Server:
    """Return a server whose links are the connections of an engine. From now on, these connections refuse writes."""
    server = Server(name, SLAVE, weight=weight)
    Opener(driver, server, master).listen(engine)
    server.source = SlaveEngine(engine, {})
    return server
