"""Engines on a pair with a table of messages, sessions, and a log of which server ran what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, String, Table, create_engine, delete, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool

import replswitch
from replswitch import MASTER, SLAVE
from replswitch.drivers import load_driver
from replswitch.sqlalchemy import EngineSwitch, RoutingSession, replicate
from replswitch.testing import ReplicatedPair

SERVED = {
    "mariadb": ("mariadb_pair", "pymysql"),
    "mysqlclient": ("mariadb_pair", "mysqldb"),
    "postgresql-psycopg": ("postgresql_pair", "psycopg"),
    "postgresql-psycopg2": ("postgresql_pair", "psycopg2"),
    "sqlite": ("sqlite_pair", "pysqlite"),
}
"""Which pair, and by which driver of SQLAlchemy's."""

OURS = {"mysqldb": "mysqlclient", "pysqlite": "sqlite3"}
"""Names of drivers that are not those of SQLAlchemy."""


class Base(DeclarativeBase):
    pass


class Message(Base):
    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String(100))


class Shop:
    """A replicated database, and what ran on which of its servers."""

    Message = Message

    def __init__(self, master: Engine, slaves: list[Engine], **options: Any) -> None:
        self.ran: list[str] = []
        for engine in (master, *slaves):
            self._listen(engine, MASTER if engine is master else SLAVE)
        self.db: EngineSwitch = replicate(master, slaves, **options)
        for engine in () if slaves else self.db.slaves:
            self._listen(engine, SLAVE)
        self.master = master
        self.engines = (master, *slaves, *self.db.slaves)
        self.Session = sessionmaker(master, class_=RoutingSession)

    def _listen(self, engine: Engine, side: str) -> None:
        @event.listens_for(engine, "before_cursor_execute")
        def run(*_: Any) -> None:
            self.ran.append(side)

    def took(self) -> list[str]:
        """The sides of the statements since this was last asked."""
        ran, self.ran[:] = list(self.ran), []
        return ran

    def close(self) -> None:
        for engine in self.engines:
            engine.dispose()


def address(settings: dict[str, Any], driver: str) -> str:
    """The settings of a server of a pair as SQLAlchemy's URL."""
    if driver == "pysqlite":
        return f"sqlite:///{settings['database']}"
    if "dbname" in settings:
        return "postgresql+{}://{user}:{password}@{host}:{port}/{dbname}".format(driver, **settings)
    return "mysql+{}://{user}:{password}@{host}:{port}/{database}".format(driver, **settings)


@pytest.fixture(params=SERVED)
def driver(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy's name for the driver of the pair; the test runs with each."""
    name = SERVED[request.param][1]
    try:
        load_driver(OURS.get(name, name), binding=True)
    except replswitch.ConfigurationError as error:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI is set, so this must not be skipped: {error}")
        pytest.skip(str(error))
    return name


@pytest.fixture
def strict(driver: str) -> str:
    """An isolation level that slaves have, and that is not the default: those of PostgreSQL refuse SERIALIZABLE."""
    return "REPEATABLE READ" if driver.startswith("psycopg") else "SERIALIZABLE"


def skip_ids(engine: Engine, tables: Iterable[Table]) -> None:
    """Let PostgreSQL go on after the ids that were inserted by hand, as the other databases do by themselves."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            for table in tables:
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 100)"))


@pytest.fixture
def replicated_pair(request: pytest.FixtureRequest, driver: str) -> ReplicatedPair:
    """One pair after the other, and MariaDB's once more for its second driver."""
    (name,) = {pair for pair, by in SERVED.values() if by == driver}
    pair: ReplicatedPair = request.getfixturevalue(name)
    return pair


@pytest.fixture
def addresses(replicated_pair: ReplicatedPair, driver: str) -> list[str]:
    """The addresses of the master and the slaves."""
    return [address(settings, driver) for settings in (replicated_pair.master, *replicated_pair.slaves)]


@pytest.fixture(scope="module")
def empty() -> Iterator[Callable[[str], None]]:
    """Empty the table of messages at an address. It is made once for each module, because that costs servers much."""
    engines: dict[str, Engine] = {}

    def run(url: str) -> None:
        if url not in engines:
            # An open file would outlive the kill of a server of SQLite.
            options: dict[str, Any] = {"poolclass": NullPool} if url.startswith("sqlite") else {"pool_pre_ping": True}
            engine = create_engine(url, **options)
            Base.metadata.drop_all(engine)
            Base.metadata.create_all(engine)
            skip_ids(engine, Base.metadata.sorted_tables)
            engines[url] = engine
        with engines[url].begin() as connection:
            connection.execute(delete(Message))

    yield run
    for engine in engines.values():
        engine.dispose()


@pytest.fixture
def urls(replicated_pair: ReplicatedPair, addresses: list[str], empty: Callable[[str], None]) -> list[str]:
    """The addresses of the master and the slaves, which have an empty table of messages."""
    empty(addresses[0])
    replicated_pair.wait_caught_up()
    return addresses


@pytest.fixture
def make(urls: list[str]) -> Iterator[Callable[..., Shop]]:
    """Make a replicated database on the pair: the arguments are those of `replicate`, and ``engine`` the engines'."""
    made: list[Shop] = []

    def shop(*, slaves: int | None = None, engine: dict[str, Any] | None = None, **options: Any) -> Shop:
        given = engine or {}
        others = [create_engine(url, **given) for url in urls[1:][:slaves]]
        made.append(Shop(create_engine(urls[0], **given), others, **options))
        return made[-1]

    yield shop
    for each in made:
        each.close()


@pytest.fixture
def shop(make: Callable[..., Shop]) -> Shop:
    """The database with its one slave."""
    return make()
