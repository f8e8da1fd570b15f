"""`replicate`: which engine is the master's, and which are its slaves'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool, QueuePool

from replswitch.checking import is_number, require, require_name
from replswitch.decision import MASTER, SLAVE
from replswitch.drivers.unknown import driver_of
from replswitch.engine.options import DatabaseOptions, OnSlaveWrite
from replswitch.engine.servers import Server, Servers
from replswitch.errors import ConfigurationError
from replswitch.sqlalchemy.commits import Recorder
from replswitch.sqlalchemy.listening import listen_to_master, listen_to_slave
from replswitch.sqlalchemy.opening import Opener, replace_links_to_former_masters, roll_back_quietly, settings_of
from replswitch.sqlalchemy.pooled import SWITCH, SlaveEngine
from replswitch.sqlalchemy.switch import EngineSwitch, switch_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from replswitch.drivers import Driver

# So the engine of a slave is known by its execution options.
_SLAVE_OF = "replswitch.slave_of"


def replicate(
    master: Engine | AsyncEngine,
    slaves: Sequence[Engine | AsyncEngine] = (),
    *,
    name: str | None = None,
    weights: Sequence[float] | None = None,
    on_slave_write: OnSlaveWrite = "master",
    wait: float = 0,
    downtime: float = 10,
    max_lag: float | None = None,
    fallback: Literal["master", "error"] = "master",
    known_for: float = 30,
) -> EngineSwitch:
    """Tell replswitch which engines are a master and its slaves. From now on every `RoutingSession` knows.

    Call it where the engines are made, before they are used. Their pools and settings stay; their connections are
    opened by replswitch, so that they tell of what is written, and those of slaves read-only.

    Args:
        master: the master's engine (or an ``AsyncEngine``).
        slaves: the slaves' engines, of the same dialect and driver. Without slaves, the master serves slave state,
            through a second, read-only engine that is made from its address (S10).
        name: what the database is called in markers; its own name on the server by default. Databases of the same name
            that replicate by themselves should have different ones, or the visitors of one wait for the other.
        weights: each slave's share of the reads, compared with the others'; 1 by default.
        on_slave_write: see `replswitch.engine.options.DatabaseOptions`, as for the next five.
        wait: seconds.
        downtime: seconds.
        max_lag: seconds.
        fallback: ``"master"`` or ``"error"``.
        known_for: seconds.

    Returns:
        the switch of this database, with ``use_master()``, ``use_slave()``, ``revert()`` and ``state``, and with the
        engines as ``master`` and ``slaves``.

    Raises:
        ConfigurationError: an engine is none, is given twice, is replicated already, is in use, or does not fit; or an
            option is of the wrong kind.
    """
    options = DatabaseOptions(
        on_slave_write=on_slave_write,
        wait=wait,
        downtime=downtime,
        max_lag=max_lag,
        fallback=fallback,
        known_for=known_for,
    )
    require_name(name)
    engine = _engine(master, "the master")
    if isinstance(slaves, str | bytes | Engine) or not isinstance(slaves, Sequence):
        raise ConfigurationError(
            f"`slaves` is a value of type {type(slaves).__name__}. It must be a list of engines: [create_engine(…)]."
        )
    others = [_engine(slave, f"slave number {number}") for number, slave in enumerate(slaves, start=1)]
    settings = {each: settings_of(each) for each in (engine, *others)}
    driver = driver_of(engine.dialect, settings[engine])
    _check_engines(engine, others, driver)
    shares = _weights(weights, len(others))
    if max_lag is not None and not driver.opens_connections:
        raise ConfigurationError(
            f'The option "max_lag" is of no use with {engine.dialect.driver}: replswitch does not ask a server through '
            "it how far behind it is. Leave it out."
        )
    for each, its_settings in settings.items():
        driver.check(its_settings, f"the engine of {each.url.host or each.url.database}")
    _close_idle(engine, others)
    server = Server(driver.address(settings[engine]), MASTER, engine)
    opener = Opener(driver, server)
    found = tuple(
        _slave(slave, driver, driver.address(settings[slave]), share)
        for slave, share in zip(others, shares, strict=True)
    )
    master_read_only = Server(server.name, SLAVE)  # nothing is read through it from a database in memory
    if not driver.in_memory:
        # Beside slaves it is seldom used, and a connection that is kept may lead to a former master.
        stand_in = _stand_in(engine, **({"poolclass": NullPool} if others else {}))
        master_read_only = _slave(stand_in, driver, server.name, 1, (engine, opener))
        found = found or (master_read_only,)
    servers = Servers(server, found, master_read_only, bool(others))
    switch = EngineSwitch(driver.schema(settings[engine]) if name is None else name, servers, driver, options)
    Recorder(switch.database.writes, driver).listen(engine)  # first: it must look before a transaction begins
    opener.listen(engine)
    roll_back_quietly(engine, driver, server)
    replace_links_to_former_masters(engine, switch.database, driver)
    listen_to_master(engine, switch)
    engine.update_execution_options(**{SWITCH: switch})
    return switch


def _engine(given: object, what: str) -> Engine:
    engine = getattr(given, "sync_engine", given)
    if not isinstance(engine, Engine):
        raise ConfigurationError(
            f"What was given as {what} is a value of type {type(given).__name__}, and no engine. Make one with "
            "sqlalchemy.create_engine()."
        )
    return engine


def _check_engines(master: Engine, slaves: list[Engine], driver: Driver) -> None:
    engines = [master, *slaves]
    for number, engine in enumerate(engines):
        what = f"slave number {number}" if number else "the master"
        if engine in engines[:number]:
            raise ConfigurationError(
                f"The engine of {what} was given before. Give an engine of its own to each server; without slaves "
                "leave them out."
            )
        if switch_of(engine) is not None or _SLAVE_OF in engine.get_execution_options():
            raise ConfigurationError(
                f"The engine of {what} is part of a replicated database already. Call replicate() once, where the "
                "engines are made."
            )
        wanted, given = _kind(master), _kind(engine)
        if wanted != given:
            raise ConfigurationError(
                f"The engine of {what} is of {given}, and the master's of {wanted}. Make it with the same."
            )
    if slaves and driver.in_memory:
        raise ConfigurationError("A database in memory has no slaves. Leave them out, or give the master a file.")


def _kind(engine: Engine) -> str:
    return f"{engine.dialect.name}+{engine.dialect.driver}"


def _weights(weights: Any, number: int) -> list[float]:
    if weights is None:
        return [1.0] * number
    fine = isinstance(weights, Sequence) and not isinstance(weights, str | bytes) and len(weights) == number
    require(fine, "weights", weights, "a list with a number for each slave")
    for weight in weights:
        require(is_number(weight) and weight > 0, "weights", weights, "a list of numbers above 0")
    return list(weights)


def _close_idle(master: Engine, slaves: list[Engine]) -> None:
    """Close what was opened before, which was not opened by us."""
    for engine in (master, *slaves):
        if isinstance(engine.pool, QueuePool):
            if engine.pool.checkedout():
                raise ConfigurationError(
                    f"A connection of the engine of {engine.url.render_as_string()} is in use. Call replicate() where "
                    "the engines are made, before anything uses them."
                )
            if engine.pool.checkedin():
                if engine.dialect.is_async:  # whose connections only their event loop can close
                    raise ConfigurationError(
                        f"The engine of {engine.url.render_as_string()} has connections that were opened before. Call "
                        "replicate() where the engines are made, before anything uses them, or say "
                        "`await engine.dispose()` first."
                    )
                engine.dispose()


def _slave(
    engine: Engine, driver: Driver, name: str, weight: float, master: tuple[Engine, Opener] | None = None
) -> Server:
    """Return a server over the links of an engine, which refuse writes from now on."""
    server = Server(name, SLAVE, weight=weight)
    Opener(driver, server, master).listen(engine)
    roll_back_quietly(engine, driver, server)
    listen_to_slave(engine)
    engine.update_execution_options(**{_SLAVE_OF: name})
    server.source = SlaveEngine(engine, {})
    return server


def _stand_in(master: Engine, **pool: Any) -> Engine:
    options = {name: value for name, value in master.get_execution_options().items() if name != SWITCH}
    return create_engine(
        master.url, echo=master.echo, execution_options=options, hide_parameters=master.hide_parameters, **pool
    )
