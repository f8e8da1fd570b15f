"""`replicate`: which engine is the master's, and which are its slaves'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from replswitch.database import no_master
from replswitch.errors import ConfigurationError
from replswitch.options import DatabaseOptions
from replswitch.sqlalchemy.commits import Recorder
from replswitch.sqlalchemy.opening import (
    Opener,
    driver_of,
    end_quietly,
    is_in_memory,
    roll_back_quietly,
    settings_of,
)
from replswitch.sqlalchemy.past_master import PastMasters
from replswitch.sqlalchemy.servers import PART, SWITCH, SlaveEngine, SlaveServer, count_reads, link_of
from replswitch.sqlalchemy.switch import EngineSwitch, switch_of
from replswitch.sqlalchemy.unknown import UnknownDriver

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import ExceptionContext
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
    on_slave_write: Literal["master", "error"] = "master",
    wait: float = 0,
    downtime: float = 10,
    max_lag: float | None = None,
    fallback: Literal["master", "error"] = "master",
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
        on_slave_write: see `replswitch.options.DatabaseOptions`, as for the next four.
        wait: seconds.
        downtime: seconds.
        max_lag: seconds.
        fallback: ``"master"`` or ``"error"``.

    Returns:
        the switch of this database, with ``use_master()``, ``use_slave()``, ``revert()`` and ``state``, and with the
        engines as ``master`` and ``slaves``.

    Raises:
        ConfigurationError: an engine is none, is given twice, is replicated already, is in use, or does not fit; or an
            option is of the wrong kind.
    """
    options = DatabaseOptions(
        on_slave_write=on_slave_write, wait=wait, downtime=downtime, max_lag=max_lag, fallback=fallback
    )
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigurationError(f'The option "name" is {name!r}. It must be a word for the database, such as "shop".')
    engine = _engine(master, "the master")
    if isinstance(slaves, str | bytes | Engine) or not isinstance(slaves, Sequence):
        raise ConfigurationError(
            f"`slaves` is a value of type {type(slaves).__name__}. It must be a list of engines: [create_engine(…)]."
        )
    others = [_engine(slave, f"slave number {number}") for number, slave in enumerate(slaves, start=1)]
    driver = driver_of(engine)
    if isinstance(driver, UnknownDriver) and driver.read_only_statement is None:
        raise ConfigurationError(
            f"replswitch does not know how sessions of {engine.dialect.name} are made read-only, so a write in slave "
            "state might be lost. Use it with MariaDB, MySQL, SQLite or PostgreSQL."
        )
    _check_engines(engine, others, driver)
    shares = _weights(weights, len(others))
    if max_lag is not None and isinstance(driver, UnknownDriver):
        raise ConfigurationError(
            f'The option "max_lag" is of no use with {engine.dialect.driver}: replswitch does not ask a server through '
            "it how far behind it is. Leave it out."
        )
    settings = {each: settings_of(each) for each in (engine, *others)}
    for each, its_settings in settings.items():
        driver.check(its_settings, f"the engine of {each.url.host or each.url.database}")
    opener = Opener(driver, read_only=False)
    _close_idle(engine, others)
    for slave in others:
        Opener(driver, read_only=True).listen(slave)
    servers = tuple(
        _server(slave, engine, driver.address(settings[slave]), share)
        for slave, share in zip(others, shares, strict=True)
    )
    reader: SlaveServer | None = None
    if not is_in_memory(engine):
        # Beside slaves it is seldom used, and a connection that is kept may lead to who was the master once.
        stand_in = _stand_in(engine, **({"poolclass": NullPool} if others else {}))
        Opener(driver, read_only=True, master=(engine, opener)).listen(stand_in)
        reader = _server(stand_in, engine, driver.address(settings[engine]), 1)
        servers = servers or (reader,)
    switch = EngineSwitch(
        engine,
        driver.address(settings[engine]),
        servers,
        reader,
        driver,
        options,
        name=driver.schema(settings[engine]) if name is None else name,
        has_slaves=bool(others),
    )
    Recorder(switch.database, driver).listen(engine)  # first: it must look before a transaction begins
    opener.listen(engine)
    roll_back_quietly(engine, driver)
    PastMasters(switch.database.slaves, driver).listen(engine)
    event.listen(engine, "after_cursor_execute", _has_run)
    event.listen(engine, "handle_error", _master_errors(switch))
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
    if slaves and is_in_memory(master):
        raise ConfigurationError("A database in memory has no slaves. Leave them out, or give the master a file.")


def _kind(engine: Engine) -> str:
    return f"{engine.dialect.name}+{engine.dialect.driver}"


def _weights(weights: Any, number: int) -> list[float]:
    if weights is None:
        return [1.0] * number
    if isinstance(weights, str | bytes) or not isinstance(weights, Sequence) or len(weights) != number:
        raise ConfigurationError(
            f'The option "weights" is {weights!r}. It must be a list with a number for each slave.'
        )
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
            raise ConfigurationError(f'The option "weights" has {weight!r} in it. Each must be a number above 0.')
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


def _server(engine: Engine, master: Engine, name: str, weight: float) -> SlaveServer:
    end_quietly(engine)
    served = SlaveEngine(engine, {_SLAVE_OF: name})
    engine.update_execution_options(**{_SLAVE_OF: name})
    count_reads(served)
    event.listen(engine, "handle_error", _slave_error)
    return SlaveServer(name, served, engine, master, weight)


def _stand_in(master: Engine, **pool: Any) -> Engine:
    options = {name: value for name, value in master.get_execution_options().items() if name != SWITCH}
    return create_engine(
        master.url, echo=master.echo, execution_options=options, hide_parameters=master.hide_parameters, **pool
    )


def _slave_error(context: ExceptionContext) -> None:
    link = link_of(context.connection)
    if link is not None and link.part is not None:
        link.part.failed_on_slave(link, context)


def _has_run(connection: Connection, *_: Any) -> None:
    part = connection.info.get(PART)
    if part is not None:
        part.has_run = True


def _master_errors(switch: EngineSwitch) -> Any:
    database, driver, name = switch.database, switch.driver, switch.master_name

    def look(context: ExceptionContext) -> None:
        error = context.original_exception
        if context.is_pre_ping or not isinstance(error, driver.module.Error):
            return
        if context.connection is None:
            if driver.unreachable(error):
                raise no_master(name, error) from error
        elif driver.is_lost_master(error):
            context.is_disconnect = True  # behind the name there may be another server by now
            part = context.connection.info.get(PART)
            if part is not None and part.failed_on_master(context):
                database.tell_of_lost_master(name, error)
                return
            database.may_run_again(driver, name, error, is_first=False, in_transaction=True)

    return look
