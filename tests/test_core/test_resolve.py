"""Slaves behind a host name with several addresses: each address is a slave of its own (F7)."""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.behind_name import NAME, ONE, TWO, Clock, Names, ProxyAt, eventually, proxies

import replswitch
from replswitch import Connection, NoServerError
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import load_driver
from replswitch.engine import resolving
from replswitch.errors import ConfigurationError
from replswitch.report import servers_of, statuses
from replswitch.testing import MySQLPair, ReplicatedPair

if TYPE_CHECKING:
    from tests.conftest import Served

SECONDS_OF_ANSWER = 31
"""After this time, the next read looks the name up again."""

PAUSE = 100
"""After this time, the next read also waits for the answer."""


@pytest.fixture
def at(served: Served) -> Iterator[dict[str, ProxyAt]]:
    """A proxy of the slave at each address, all with one port."""
    with proxies(served.pair.slaves[0]["port"]) as found:
        yield found


@pytest.fixture
def db(served: Served, at: dict[str, ProxyAt], names: Names, clock: Clock) -> Iterator[Connection]:
    with replswitch.connect(**settings(served.pair, at, driver=served.driver)) as db:
        yield db


def settings(pair: ReplicatedPair, at: dict[str, ProxyAt], **more: Any) -> dict[str, Any]:
    slave = {"host": NAME, "port": at[ONE].port, "resolve": True}
    return {"master": pair.master, "slaves": [slave], "debug": True, **more}


def server(db: Connection, address: str) -> str:
    port = db.servers.slaves[0].name.rpartition(":")[2]
    return f"{NAME} ({address}:{port}"


def read(db: Connection) -> str:
    """Read in a scope of its own; return the name of the server."""
    with use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() is not None
    return str(db.queries[-1]["server"])


def readers(db: Connection) -> set[str]:
    """Return the servers of some reads."""
    return {read(db) for _ in range(25)}


of_each_driver = pytest.mark.parametrize("served", ["mariadb", "mysql-mysqlclient", "postgresql"], indirect=True)
of_one_driver = pytest.mark.parametrize("served", ["mariadb"], indirect=True)


class TestReads:
    @of_each_driver
    def test_f7_each_address_serves_and_a_new_one_joins_and_a_former_one_leaves(
        self, db: Connection, names: Names, clock: Clock, at: dict[str, ProxyAt]
    ) -> None:
        names.addresses = (ONE,)
        assert readers(db) == {f"{NAME} ({ONE}:{at[ONE].port})"}
        names.addresses = (ONE, TWO)
        clock.passed += SECONDS_OF_ANSWER
        read(db)
        eventually(lambda: len(db.servers.slaves) == 2)
        assert readers(db) == {server(db, ONE), server(db, TWO)}
        assert at[ONE].connections == at[TWO].connections == 1
        names.addresses = (TWO,)
        clock.passed += SECONDS_OF_ANSWER
        read(db)
        eventually(lambda: len(db.servers.slaves) == 1)
        assert readers(db) == {server(db, TWO)}
        eventually(lambda: at[ONE].connections == 0)
        assert names.asked == 3

    @of_one_driver
    def test_f7_resolve_works_in_a_url(self, served: Served, at: dict[str, ProxyAt], names: Names) -> None:
        url = f"mysql://{NAME}:{at[ONE].port}?resolve=true"
        with replswitch.connect(served.pair.master, url, debug=True) as db:
            assert readers(db) == {server(db, ONE), server(db, TWO)}

    @of_one_driver
    def test_f7_a_transaction_ends_on_an_address_that_is_gone(self, db: Connection, names: Names, clock: Clock) -> None:
        with use_slave():
            db.begin()
            with db.cursor() as cursor:
                cursor.execute("SELECT 1")
                cursor.fetchall()
                first = str(db.queries[-1]["server"])
                names.addresses = (TWO,) if ONE in first else (ONE,)
                clock.passed += PAUSE
                other = threading.Thread(target=read, args=(db,))
                other.start()
                other.join()
                assert first not in [each.name for each in db.servers.slaves]
                cursor.execute("SELECT 2")
                assert cursor.fetchone() is not None
                assert db.queries[-1]["server"] == first
            db.commit()
            with db.cursor() as cursor:
                cursor.execute("SELECT 3")
                cursor.fetchall()
            assert db.queries[-1]["server"] != first, "a running scope stays on an address that is gone"

    @of_one_driver
    def test_f7_each_address_leaves_and_returns_to_rotation_by_itself(
        self, db: Connection, at: dict[str, ProxyAt]
    ) -> None:
        readers(db)
        at[TWO].refuse()
        assert readers(db) == {server(db, ONE)}
        assert [each.name for each in db.database.rotation.resting] == [server(db, TWO)]

    @of_one_driver
    def test_f7_an_address_that_is_gone_is_not_kept_out_of_rotation(
        self, db: Connection, names: Names, clock: Clock, at: dict[str, ProxyAt]
    ) -> None:
        readers(db)
        at[TWO].refuse()
        readers(db)
        names.addresses = (ONE,)
        clock.passed += PAUSE
        read(db)
        assert not db.database.rotation.resting

    @of_one_driver
    def test_f7_the_position_of_one_address_is_not_taken_for_that_of_another(
        self, served: Served, db: Connection, at: dict[str, ProxyAt]
    ) -> None:
        readers(db)
        at[TWO].target = served.pair.master["port"]  # a server that has everything
        at[TWO].cut()
        with db.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS resolved")
            cursor.execute("CREATE TABLE resolved (id INTEGER PRIMARY KEY)")
        served.pair.wait_caught_up()
        served.pair.stop_slave()
        for number in range(8):
            with use_master(), db.cursor() as cursor:
                cursor.execute("INSERT INTO resolved VALUES (%s)", (number,))
                with use_slave():
                    cursor.execute("SELECT COUNT(*) FROM resolved")
                    assert cursor.fetchone() == (number + 1,)
            assert db.queries[-1]["server"] == server(db, TWO)

    @of_one_driver
    def test_f7_the_report_has_each_address_and_each_name_without_one(
        self, served: Served, db: Connection, at: dict[str, ProxyAt], names: Names
    ) -> None:
        found = statuses(servers_of(db))
        assert [(each.server, each.reachable) for each in found[1:]] == [
            (server(db, ONE), True),
            (server(db, TWO), True),
        ]
        names.addresses = ()
        with replswitch.connect(**settings(served.pair, at)) as other:
            _, slave = statuses(servers_of(other))
        assert (slave.server, slave.reachable) == (f"{NAME}:{at[ONE].port}", False)
        assert "Name or service not known" in str(slave.problem)


@of_one_driver
class TestLookups:
    def test_f7_no_statement_within_30_seconds_looks_the_name_up(self, db: Connection, names: Names) -> None:
        readers(db)
        assert names.asked == 1

    def test_f7_a_lookup_that_fails_keeps_the_last_answer_and_is_logged_twice(
        self, db: Connection, names: Names, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "replswitch")
        both = readers(db)
        names.addresses = ()
        for number in range(2, 5):
            clock.passed += PAUSE
            assert readers(db) == both
            assert names.asked == number
        names.addresses = (ONE, TWO)
        clock.passed += PAUSE
        assert readers(db) == both
        eventually(lambda: len(caplog.records) == 2)
        began, ended = (record.getMessage() for record in caplog.records)
        assert "The host name slaves.db cannot be looked up" in began
        assert "[event=resolve-failed" in began
        assert "The host name slaves.db can be looked up again" in ended
        assert replswitch.stats()["resolve-failed"][db.database.name, NAME] >= 3

    def test_f7_a_lookup_that_has_failed_is_tried_again_after_5_seconds(
        self, db: Connection, names: Names, clock: Clock
    ) -> None:
        names.addresses = ()
        assert "slaves" not in read(db), "the master serves without an address"
        names.addresses = (ONE,)
        clock.passed += 6
        read(db)
        eventually(lambda: db.servers.slaves)
        assert readers(db) == {server(db, ONE)}

    def test_f7_without_an_address_reads_fail_if_the_master_may_not_serve(
        self, served: Served, at: dict[str, ProxyAt], names: Names
    ) -> None:
        names.addresses = ()
        with replswitch.connect(**settings(served.pair, at, fallback="error")) as db, pytest.raises(NoServerError):
            read(db)

    def test_f7_a_lookup_that_hangs_delays_no_statement(self, db: Connection, names: Names, clock: Clock) -> None:
        both = readers(db)
        names.goes_on.clear()
        clock.passed += SECONDS_OF_ANSWER
        began = time.monotonic()
        assert readers(db) == both
        assert time.monotonic() - began < 0.5
        assert names.asked == 2, "one lookup at a time"

    def test_f7_the_first_read_waits_for_a_second_at_most(self, db: Connection, names: Names) -> None:
        names.goes_on.clear()
        began = time.monotonic()
        assert "slaves" not in read(db)
        assert 0.9 < time.monotonic() - began < 2
        began = time.monotonic()
        read(db)
        assert time.monotonic() - began < 0.5, "the second read waits, too"
        names.goes_on.set()
        eventually(lambda: db.servers.slaves)
        assert readers(db) == {server(db, ONE), server(db, TWO)}

    def test_f7_a_forked_child_looks_the_name_up_although_the_parent_is_looking_it_up(
        self, db: Connection, names: Names, clock: Clock
    ) -> None:
        readers(db)
        names.goes_on.clear()
        clock.passed += SECONDS_OF_ANSWER
        read(db)
        child = os.fork()
        if not child:
            code = 1
            try:
                names.goes_on = threading.Event()
                names.goes_on.set()
                names.addresses = (TWO,)
                clock.passed += PAUSE
                code = 0 if readers(db) == {f"{NAME} ({TWO}:{db.servers.slaves[0].name.rpartition(':')[2]}"} else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        names.goes_on.set()
        assert readers(db) == {server(db, ONE), server(db, TWO)}, "the child has closed links of the parent"


def test_f7_of_ipv4_and_ipv6_addresses_only_the_kind_listed_first_is_used(names: Names) -> None:
    names.addresses = ("fd00::7", ONE, "fd00::8")
    assert resolving.addresses_of(NAME, 3306) == ["fd00::7", "fd00::8"]
    names.addresses = (ONE, "fd00::7")
    assert resolving.addresses_of(NAME, 3306) == [ONE]


def test_f7_an_ipv6_address_has_brackets_in_the_name_of_its_slave(names: Names) -> None:
    names.addresses = ("fd00::7",)
    with replswitch.connect({"host": "master.db"}, [{"host": NAME, "resolve": True}]) as db:
        db.servers.look_up()
        (slave,) = db.servers.slaves
        assert slave.name == f"{NAME} ([fd00::7]:3306)"
        assert load_driver("pymysql").endpoint(slave.name) == ("fd00::7", 3306)


class Recording(ssl.SSLContext):
    """Keeps the name that it is to verify."""

    verified: str | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> Any:
        self.verified = options.get("server_hostname")
        return super().wrap_socket(*args, **options)


def test_f7_tls_verifies_the_name_with_pymysql(mysql_pair: MySQLPair, names: Names) -> None:
    context = Recording(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    slave = {**mysql_pair.slaves[0], "host": NAME, "ssl": context, "resolve": True}
    slave.pop("ssl_disabled", None)
    names.addresses = (ONE,)
    with replswitch.connect(mysql_pair.master, [slave], debug=True) as db:
        assert read(db) == f"{NAME} ({ONE}:{slave['port']})"
    assert context.verified == NAME


@pytest.mark.parametrize("served", ["postgresql"], indirect=True)
def test_f7_tls_verifies_the_name_with_psycopg(db: Connection) -> None:
    """libpq verifies ``host``, and connects to ``hostaddr``."""
    with use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT 1")
        info = cursor.connection.info
        assert (info.host, info.hostaddr) == (NAME, str(db.queries[-1]["server"]).partition("(")[2].partition(":")[0])


@pytest.mark.parametrize(
    ("master", "slave", "driver", "message"),
    [
        ({"resolve": True}, {}, "pymysql", "of the master is True. A master has one address"),
        ({}, {"resolve": "yes"}, "pymysql", "of slave number 1 is 'yes'. It must be True or False"),
        ({}, {"resolve": 1}, "pymysql", "is 1. It must be True or False"),
        ({}, {"resolve": True, "host": "", "unix_socket": "/run/m.sock"}, "pymysql", "needs a host name to look up"),
        ({}, {"resolve": True, "host": "a.db,b.db"}, "psycopg", "Write one entry in the slaves for each host"),
        ({}, {"resolve": True, "host": "/run/postgresql"}, "psycopg", "needs a host name to look up"),
        ({}, {"resolve": True, "hostaddr": ONE}, "psycopg", "needs a host name to look up"),
        ({}, {"resolve": True, "ssl_mode": "VERIFY_IDENTITY"}, "mysqlclient", "Use PyMySQL, which verifies the name"),
    ],
)
def test_f7_a_resolve_that_cannot_work_is_refused(
    master: dict[str, Any], slave: dict[str, Any], driver: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replswitch.connect({"host": "master.db", **master}, [{"host": NAME, **slave}], driver=driver)


def test_f7_resolve_is_refused_with_sqlite() -> None:
    with pytest.raises(ConfigurationError, match='"resolve" of slave number 1 does not work with sqlite3'):
        replswitch.connect({"database": "m.db"}, [{"database": "s.db", "resolve": True}], driver="sqlite3")


def test_f7_resolve_in_a_url_must_be_true_or_false() -> None:
    with pytest.raises(ConfigurationError, match='option "resolve" in `slaves\\[0\\]` must be "true" or "false"'):
        replswitch.connect("mysql://master.db/shop", f"mysql://{NAME}?resolve=perhaps")
