"""M8: all engines of one master, sync and async, and connections by `connect` to it, are one replicated set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tests.test_sqlalchemy.conftest import OURS, Message, Shop, address

import replswitch
from replswitch import carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.drivers.dialects import driver_of
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.sqlalchemy.opening import settings_of

if TYPE_CHECKING:
    from replswitch.testing import ReplicatedPair

ASYNC = {
    "pymysql": "aiomysql",
    "mysqldb": "aiomysql",
    "psycopg": "psycopg",
    "psycopg2": "psycopg",
    "pysqlite": "aiosqlite",
}


def of_connect(driver: str) -> str:
    """The driver of `connect()` for the same servers."""
    return "psycopg" if driver == "psycopg2" else OURS.get(driver, driver)


def number(shop: Shop) -> int:
    with shop.Session() as session:
        return session.scalar(select(func.count(Message.id))) or 0


def add(shop: Shop) -> None:
    with shop.Session() as session:
        session.add(Message(body="x"))
        session.commit()


def add_asynchronously(pair: ReplicatedPair, driver: str) -> str:
    """Write through an asynchronous engine of the pair. Return a token with the write, for a job."""
    urls = [
        address(settings, driver).replace(f"+{driver}:", f"+{ASYNC[driver]}:").replace("sqlite:", "sqlite+aiosqlite:")
        for settings in (pair.master, pair.slaves[0])
    ]

    async def write() -> str:
        master, slave = map(create_async_engine, urls)
        replicate(master, [slave])
        async with async_sessionmaker(master, class_=AsyncSession, sync_session_class=RoutingSession)() as session:
            session.add(Message(body="x"))
            await session.commit()
        for engine in (master, slave):
            await engine.dispose()
        return carry()

    return asyncio.run(write())


def test_m8_a_write_by_an_async_engine_is_seen_by_the_sync_one(
    make: Callable[..., Shop], replicated_pair: ReplicatedPair, driver: str
) -> None:
    shop = make()
    replicated_pair.stop_slave()
    with use_master():
        token = add_asynchronously(replicated_pair, driver)
        with use_slave():
            assert number(shop) == 1
    with resume(token), use_slave():
        assert number(shop) == 1


def test_m8_a_write_by_connect_is_seen_by_a_session_in_the_same_request_and_the_next(
    make: Callable[..., Shop], replicated_pair: ReplicatedPair, driver: str
) -> None:
    shop = make()
    db = replswitch.connect(replicated_pair.master, replicated_pair.slaves, driver=of_connect(driver))
    replicated_pair.stop_slave()
    with use_master():
        with db.cursor() as cursor:
            cursor.execute("INSERT INTO message (id, body) VALUES (1, 'x')")
        with use_slave():
            assert number(shop) == 1
        token = carry()
    with resume(token), use_slave():
        assert number(shop) == 1
    db.close()


def test_m8_a_write_by_a_session_is_seen_by_connect_in_the_same_request(
    make: Callable[..., Shop], replicated_pair: ReplicatedPair, driver: str
) -> None:
    shop = make()
    replicated_pair.stop_slave()
    with (
        replswitch.connect(replicated_pair.master, replicated_pair.slaves, driver=of_connect(driver)) as db,
        use_master(),
    ):
        add(shop)
        with use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM message")
            assert cursor.fetchone()[0] == 1


def test_m8_the_option_name_keeps_sets_apart(make: Callable[..., Shop], replicated_pair: ReplicatedPair) -> None:
    one, two = make(name="one"), make(name="two")
    replicated_pair.stop_slave()
    with use_master():
        add(one)
        with use_slave():
            assert number(two) == 0


URLS = ["mysql+pymysql://u:p@h/shop", "mysql+pymysql://h:3306/?db=shop", "mysql+mysqldb://h/?database=shop"]
ASYNC_URLS = ["mysql+aiomysql://h/shop", "mysql+aiomysql://H:3306/?db=shop", "mariadb+aiomysql://h/?database=shop"]


def test_m8_all_forms_of_a_url_give_one_set_and_messages_name_the_database() -> None:
    engines: list[Any] = [*map(create_engine, URLS), *map(create_async_engine, ASYNC_URLS)]
    found = [replicate(engine).database for engine in engines]
    assert {each.name for each in found} == {"shop"}
    assert len({each.set_name for each in found}) == 1


# The ends of URLs, and the address of the server that they name.
POSTGRESQL_URLS = {
    "/shop": "localhost",
    "u@/shop": "localhost",
    "u@localhost:5432/shop": "localhost",
    "u:p@H.Example:5432/shop": "h.example",
    "u:p@h.example./log": "h.example",
    "u@h.example:5433/shop": "h.example:5433",
    "u@/shop?host=H.example:5433": "h.example:5433",
    "u@/shop?host=h.example&port=5433": "h.example:5433",
    "u@/shop?host=/run/Sockets": "/run/Sockets",
    "u@/shop?host=%2Frun%2FSockets&port=5433": "/run/Sockets:5433",
    "u@/shop?host=h1:5432&host=H2.:5433": "h1,h2:5433",
    "u@/shop?host=h1,h2&port=5432,5433": "h1,h2:5433",
    "u@[::1]/shop": "::1",
    "u@/shop?service=shop": "localhost\nshop",
}

MYSQL_URLS = {
    "/shop": "localhost",
    "u@localhost:3306/shop": "localhost",
    "u:p@H.Example.:3306/log": "h.example",
    "u@h.example:3307/shop": "h.example:3307",
    "u@/shop?host=h.example&port=3307": "h.example:3307",
    "u@/shop?unix_socket=/run/Mysqld.sock": "/run/Mysqld.sock",
    "u@localhost/shop?unix_socket=%2Frun%2FMysqld.sock": "/run/Mysqld.sock",
    "u@[::1]/shop": "::1",
}

SYNC_AND_ASYNC = {
    "postgresql": (["psycopg", "psycopg2"], ["psycopg", "asyncpg"], POSTGRESQL_URLS),
    "mysql": (["pymysql", "mysqldb"], ["aiomysql", "asyncmy"], MYSQL_URLS),
}


@pytest.mark.parametrize("product", SYNC_AND_ASYNC)
def test_m8_engines_with_and_without_asyncio_give_the_set_of_an_address_the_same_name(product: str) -> None:
    sync, asyncio, urls = SYNC_AND_ASYNC[product]
    for rest, wanted in urls.items():
        engines = [create_engine(f"{product}+{driver}://{rest}") for driver in sync]
        engines += [create_async_engine(f"{product}+{driver}://{rest}").sync_engine for driver in asyncio]
        found = {f"{each.driver} {each.dialect.is_async}": settings_of(each) for each in engines}
        drivers = [driver_of(each.dialect, {}) for each in engines]
        located = {name: each.location(found[name]) for name, each in zip(found, drivers, strict=True)}
        assert located == dict.fromkeys(found, wanted), rest
        assert len({each.address(its) for each, its in zip(drivers, found.values(), strict=True)}) == 1, rest
        assert len({each.schema(its) for each, its in zip(drivers, found.values(), strict=True)}) == 1, rest


@pytest.mark.parametrize("driver", ["pymysql", "mysqldb", "aiomysql", "asyncmy"])
def test_m8_with_a_host_and_a_socket_the_set_is_named_by_the_one_that_the_driver_connects_to(driver: str) -> None:
    """mysqlclient uses the socket only if the host is localhost; the other drivers use it always."""
    engine = create_engine(f"mysql+{driver}://u@h/shop?unix_socket=/run/Mysqld.sock")
    located = driver_of(engine.dialect, {}).location(settings_of(engine))
    assert located == ("h" if driver == "mysqldb" else "/run/Mysqld.sock")


@pytest.mark.parametrize("url", ["mysql+pymysql://h/", "mysql+aiomysql://h/"])
def test_m8_without_a_database_in_the_url_messages_have_the_address(url: str) -> None:
    make: Any = create_async_engine if "aio" in url else create_engine
    assert replicate(make(url)).database.name == "h"


def test_m8_each_sqlite_database_in_memory_is_a_set_of_its_own() -> None:
    one, two = replicate(create_engine("sqlite://")), replicate(create_engine("sqlite://"))
    assert one.database.set_name != two.database.set_name
