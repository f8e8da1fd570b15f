"""An engine with ``resolve=true`` in its URL: each address of its host is a slave of its own (F7)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import AssertionPool, NullPool
from tests.behind_name import NAME, ONE, TWO, Clock, Names, ProxyAt, proxies
from tests.eventually import eventually
from tests.test_sqlalchemy.conftest import Message

from replswitch import ConfigurationError
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import EngineSwitch, RoutingSession, replicate
from replswitch.testing import ReplicatedPair

PAUSE = 100
"""After this time in seconds, the next read looks the name up, and waits for the answer."""

of_servers = pytest.mark.parametrize(
    "driver", ["mariadb", "mysqlclient", "postgresql-psycopg", "postgresql-psycopg2"], indirect=True
)
of_one_driver = pytest.mark.parametrize("driver", ["mariadb"], indirect=True)

Make = Callable[..., "Shop"]


class Shop:
    """A replicated database with slaves behind `NAME`.

    Attributes:
        db: its switch.
        master: the engine of the master.
        slave: the engine with ``resolve=true``.
    """

    def __init__(self, master: Engine, slave: Engine, **options: Any) -> None:
        self.master, self.slave = master, slave
        self.db: EngineSwitch = replicate(master, [slave], **options)
        self.Session = sessionmaker(master, class_=RoutingSession)

    def read(self) -> str:
        """Read in a scope of its own; return the name of the server."""
        with use_slave(), self.Session() as session:
            session.scalars(text("SELECT 1")).one()
            return server_of(session)

    def readers(self) -> set[str]:
        """Return the servers of some reads."""
        return {self.read() for _ in range(25)}

    @property
    def known(self) -> set[str]:
        """The names of the slaves."""
        return {server.name for server in self.db.servers.slaves}


def server_of(session: Any) -> str:
    """Return the name of the server of a session's transaction."""
    return str(session.connection().info["replswitch.link"].server.name)


@pytest.fixture
def at(replicated_pair: ReplicatedPair) -> Iterator[dict[str, ProxyAt]]:
    """A proxy of the slave at each address, all with one port."""
    with proxies(replicated_pair.slaves[0]["port"]) as found:
        yield found


@pytest.fixture
def make(urls: list[str], at: dict[str, ProxyAt], names: Names, clock: Clock) -> Iterator[Make]:
    """Make a database whose slaves are behind `NAME`; ``engine`` are arguments of the slaves' engine."""
    made: list[Shop] = []

    def shop(*, engine: dict[str, Any] | None = None, option: str = "true", **options: Any) -> Shop:
        master = create_engine(urls[0])
        url = master.url.set(host=NAME, port=at[ONE].port).update_query_dict({"resolve": option})
        made.append(Shop(master, create_engine(url, **engine or {}), **options))
        return made[-1]

    yield shop
    for each in made:
        each.master.dispose()
        each.slave.dispose()


@pytest.fixture
def shop(make: Make) -> Shop:
    return make()


def named(at: dict[str, ProxyAt], address: str) -> str:
    return f"{NAME} ({address}:{at[address].port})"


class TestReads:
    @of_servers
    def test_f7_each_address_serves_and_later_lookups_add_and_remove_addresses(
        self, shop: Shop, at: dict[str, ProxyAt], names: Names, clock: Clock
    ) -> None:
        one, two = named(at, ONE), named(at, TWO)
        names.addresses = (ONE,)
        assert shop.readers() == {one}
        names.addresses = (ONE, TWO)
        clock.passed += PAUSE
        assert shop.readers() == {one, two}
        assert at[ONE].connections == at[TWO].connections == 1
        names.addresses = (TWO,)
        clock.passed += PAUSE
        assert shop.readers() == {two}
        eventually(lambda: at[ONE].connections == 0)
        assert names.asked == 3

    @of_one_driver
    @pytest.mark.parametrize("pool", [NullPool, AssertionPool])
    def test_f7_the_pool_of_an_address_has_the_class_of_the_engines_pool(
        self, make: Make, at: dict[str, ProxyAt], pool: Any
    ) -> None:
        shop = make(engine={"poolclass": pool})
        assert shop.readers() == {named(at, ONE), named(at, TWO)}
        assert {type(engine.pool) for engine in shop.db.slaves} == {pool}

    @of_one_driver
    def test_f7_the_pool_of_an_address_has_the_settings_of_the_engines_pool(self, make: Make) -> None:
        shop = make(engine={"pool_size": 3, "max_overflow": 2, "pool_timeout": 7, "pool_recycle": 9})
        shop.read()
        pools: list[Any] = [engine.pool for engine in shop.db.slaves]
        assert [(each.size(), each._max_overflow, each.timeout(), each._recycle) for each in pools] == [
            (3, 2, 7, 9)
        ] * 2

    @of_one_driver
    def test_f7_connect_args_and_the_isolation_level_apply_to_each_address(self, make: Make) -> None:
        shop = make(
            engine={"isolation_level": "SERIALIZABLE", "connect_args": {"init_command": "SET @of_application = 7"}}
        )
        shop.read()
        for engine in shop.db.slaves:
            with engine.connect() as connection:
                row = connection.execute(text("SELECT @of_application, @@tx_isolation")).one()
            assert tuple(row) == (7, "SERIALIZABLE")

    @of_servers
    def test_f7_a_link_to_an_address_refuses_writes_and_the_write_moves(
        self, replicated_pair: ReplicatedPair, shop: Shop, at: dict[str, ProxyAt]
    ) -> None:
        for proxy in at.values():
            proxy.target = replicated_pair.master["port"]  # a server that would accept writes
        shop.read()
        with use_slave(), shop.Session() as session:
            session.execute(insert(Message).values(body="moved"))
            assert server_of(session) == shop.db.master_name
            session.commit()
        for engine in shop.db.slaves:
            with engine.connect() as connection, pytest.raises(DBAPIError, match=r"(?i)read.only"):
                connection.execute(text("DELETE FROM message"))

    @of_one_driver
    def test_f7_a_transaction_ends_on_an_address_that_is_gone(
        self, shop: Shop, names: Names, clock: Clock, at: dict[str, ProxyAt]
    ) -> None:
        with use_slave(), shop.Session() as session:
            session.scalars(text("SELECT 1")).one()
            first = server_of(session)
            gone, stays = (ONE, TWO) if ONE in first else (TWO, ONE)
            names.addresses = (stays,)
            clock.passed += PAUSE
            other = threading.Thread(target=shop.read)
            other.start()
            other.join()
            assert shop.known == {named(at, stays)}
            assert session.scalars(text("SELECT 2")).one() == 2
            assert server_of(session) == first
            session.commit()
            session.scalars(text("SELECT 3")).one()
            assert server_of(session) != first, "a running scope stays on an address that is gone"
        eventually(lambda: shop.read() and at[gone].connections == 0)

    @of_one_driver
    def test_f7_a_session_with_an_engine_of_its_own_options_reads_from_each_address(
        self, shop: Shop, at: dict[str, ProxyAt]
    ) -> None:
        shop.Session.configure(bind=shop.master.execution_options(isolation_level="SERIALIZABLE"))
        assert shop.readers() == {named(at, ONE), named(at, TWO)}

    @of_one_driver
    def test_f7_an_address_has_a_rotation_of_its_own(self, shop: Shop, at: dict[str, ProxyAt]) -> None:
        shop.readers()
        at[TWO].refuse()
        assert shop.readers() == {named(at, ONE)}
        assert [each.name for each in shop.db.database.rotation.resting] == [named(at, TWO)]

    @of_one_driver
    def test_f7_the_position_of_one_address_is_not_taken_for_that_of_another(
        self, replicated_pair: ReplicatedPair, shop: Shop, at: dict[str, ProxyAt]
    ) -> None:
        shop.readers()
        at[TWO].target = replicated_pair.master["port"]  # a server that has everything
        at[TWO].cut()
        replicated_pair.stop_slave()
        for number in range(1, 9):
            with use_master(), shop.Session() as session:
                session.add(Message(body="hello"))
                session.commit()
                with use_slave():
                    assert session.query(Message).count() == number
                    assert server_of(session) == named(at, TWO)

    @of_one_driver
    def test_f7_the_lag_of_each_address_is_measured(
        self, replicated_pair: ReplicatedPair, make: Make, at: dict[str, ProxyAt]
    ) -> None:
        shop = make(max_lag=60)
        at[TWO].target = replicated_pair.master["port"]
        assert shop.readers() == {named(at, ONE), named(at, TWO)}
        replicated_pair.stop_slave()
        shop = make(max_lag=60)
        assert shop.readers() == {named(at, TWO)}


@of_one_driver
class TestEngines:
    def test_f7_a_listener_on_the_engine_runs_for_each_address_that_a_lookup_finds_now_or_later(
        self, shop: Shop, names: Names, clock: Clock, at: dict[str, ProxyAt]
    ) -> None:
        names.addresses = (ONE,)
        shop.read()
        ran, opened = [], []
        engines = [engine for engine in shop.db.engines if engine.url.host == NAME]
        for engine in engines:
            event.listen(engine, "after_cursor_execute", lambda *_: ran.append(1))
            event.listen(engine, "connect", lambda *_: opened.append(1))
        assert len(engines) == 1
        shop.read()
        assert (len(ran), len(opened)) == (1, 0)
        with shop.db.slaves[0].connect(), shop.db.slaves[0].connect():
            assert len(opened) == 1, "the listener does not run for an address that was known before"
        opened.clear()
        names.addresses = (ONE, TWO)
        clock.passed += PAUSE
        ran.clear()
        assert shop.readers() == {named(at, ONE), named(at, TWO)}
        assert (len(ran), len(opened)) == (25, 1)

    def test_f7_disposing_of_the_engine_closes_the_connections_to_each_address(
        self, shop: Shop, at: dict[str, ProxyAt]
    ) -> None:
        shop.readers()
        shop.slave.dispose()
        eventually(lambda: at[ONE].connections == at[TWO].connections == 0)
        assert shop.readers() == {named(at, ONE), named(at, TWO)}

    def test_f7_disposing_of_the_engine_also_closes_connections_to_an_address_that_is_gone(
        self, shop: Shop, names: Names, clock: Clock, at: dict[str, ProxyAt]
    ) -> None:
        names.addresses = (ONE,)
        with use_slave(), shop.Session() as session:
            session.scalars(text("SELECT 1")).one()
            names.addresses = (TWO,)
            clock.passed += PAUSE
            other = threading.Thread(target=shop.read)
            other.start()
            other.join()
            assert shop.known == {named(at, TWO)}
        assert at[ONE].connections == 1
        shop.slave.dispose()
        eventually(lambda: at[ONE].connections == at[TWO].connections == 0)

    def test_f7_the_slaves_are_the_engines_of_the_addresses(self, shop: Shop, at: dict[str, ProxyAt]) -> None:
        assert shop.db.slaves == ()
        shop.read()
        assert len(shop.db.slaves) == 2
        for engine, address in zip(shop.db.slaves, (ONE, TWO), strict=True):
            with engine.connect() as connection:
                assert connection.info["replswitch.link"].server.name == named(at, address)
                assert (at[ONE].connections, at[TWO].connections)[address == TWO] >= 1

    def test_f7_the_application_can_use_the_engine_itself_and_its_links_refuse_writes(
        self, replicated_pair: ReplicatedPair, shop: Shop, at: dict[str, ProxyAt]
    ) -> None:
        at[ONE].target = replicated_pair.master["port"]
        with shop.slave.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
            with pytest.raises(DBAPIError, match="READ ONLY"):
                connection.execute(text("DELETE FROM message"))

    def test_f7_resolve_false_is_an_ordinary_slave(self, make: Make, names: Names, at: dict[str, ProxyAt]) -> None:
        assert make(option="false").readers() == {f"{NAME}:{at[ONE].port}"}

    def test_f7_weights_belong_to_the_addresses_of_an_entry(self, make: Make) -> None:
        shop = make(weights=[3])
        shop.read()
        assert [server.weight for server in shop.db.servers.slaves] == [3, 3]

    def test_f7_a_name_without_an_address_leaves_the_reads_to_the_master(
        self, shop: Shop, names: Names, clock: Clock, at: dict[str, ProxyAt]
    ) -> None:
        names.addresses = ()
        assert shop.read() == shop.db.master_name
        names.addresses = (ONE,)
        clock.passed += PAUSE
        assert shop.readers() == {named(at, ONE)}

    def test_s12_a_forked_child_opens_its_own_links_to_the_addresses(
        self, shop: Shop, names: Names, clock: Clock, at: dict[str, ProxyAt]
    ) -> None:
        shop.readers()
        links = [number_of(engine) for engine in shop.db.slaves]
        names.goes_on.clear()
        clock.passed += 31
        shop.read()
        child = os.fork()
        if not child:
            code = 1
            try:
                names.goes_on = threading.Event()
                names.goes_on.set()
                names.addresses = (TWO,)
                clock.passed += PAUSE
                code = 0 if shop.readers() == {named(at, TWO)} else 2
                code = code or (3 if number_of(shop.db.slaves[0]) in links else 0)
                shop.slave.dispose()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        names.goes_on.set()
        assert shop.readers() == {named(at, ONE), named(at, TWO)}
        assert [number_of(engine) for engine in shop.db.slaves] == links, "the child has closed links of the parent"


def number_of(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT CONNECTION_ID()"))


@pytest.mark.parametrize("driver", ["postgresql-psycopg"], indirect=True)
def test_f7_tls_verifies_the_name(shop: Shop) -> None:
    """libpq verifies ``host``, and connects to ``hostaddr``."""
    shop.read()
    for engine, address in zip(shop.db.slaves, (ONE, TWO), strict=True):
        with engine.connect() as connection:
            info: Any = connection.connection.dbapi_connection
            assert (info.info.host, info.info.hostaddr) == (NAME, address)


class TestRefused:
    @pytest.mark.filterwarnings("ignore:Query string argument")  # SQLAlchemy's own, of a URL of SQLite
    @pytest.mark.parametrize(
        ("master", "slave", "message"),
        [
            ("mysql+pymysql://m.db?resolve=true", "mysql+pymysql://s.db", "of the master is true. A master has one"),
            ("mysql+pymysql://m.db", "mysql+pymysql://s.db?resolve=si", r"in `slaves\[0\]` must be \"true\" or"),
            ("mysql+pymysql://m.db", "mysql+pymysql://?resolve=true", "of slave number 1 needs a host name"),
            (
                "mysql+pymysql://m.db",
                "mysql+pymysql://s.db?resolve=true&unix_socket=/run/m.sock",
                "of slave number 1 needs a host name to look up",
            ),
            (
                "postgresql+psycopg://m.db",
                "postgresql+psycopg://?host=a.db&host=b.db&resolve=true",
                "one entry in the slaves for each host",
            ),
            (
                "mysql+mysqldb://m.db",
                "mysql+mysqldb://s.db?resolve=true&ssl_mode=VERIFY_IDENTITY",
                "Use PyMySQL, which verifies the name",
            ),
            ("sqlite:///m.db", "sqlite:///s.db?resolve=true", "of slave number 1 does not work with sqlite3"),
        ],
    )
    def test_f7_a_resolve_that_cannot_work_is_refused(self, master: str, slave: str, message: str) -> None:
        engines = create_engine(master), create_engine(slave)
        with pytest.raises(ConfigurationError, match=message):
            replicate(engines[0], [engines[1]])
        assert "replswitch" not in engines[0].get_execution_options()
