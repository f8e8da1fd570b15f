"""Servers that fail, on real ones: no reader notices, and nothing is written twice (F1, F2, F3)."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pymysql
import pytest
from tests.ended_links import killed_while_it_sleeps, while_it_sleeps

import replswitch
from replswitch import MASTER, SLAVE, NoServerError
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import Fault
from replswitch.drivers.pymysql import DRIVER as PYMYSQL
from replswitch.engine.block import Block
from replswitch.request.marker import Marker, MarkerSigner
from replswitch.state import stack
from replswitch.testing import MariaDBPair, Proxy
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replswitch import Connection

    Make = Callable[..., Connection]


@pytest.fixture
def pair(message_pair: MariaDBPair) -> MariaDBPair:
    return message_pair


@pytest.fixture
def make(pair: MariaDBPair) -> Iterator[Make]:
    with ExitStack() as opened:

        def connect(**options: Any) -> Connection:
            arguments = {"master": pair.master, "slaves": pair.slaves, "debug": True, **options}
            return opened.enter_context(closing(replswitch.connect(**arguments)))

        yield connect


def read(db: Connection) -> Any:
    with db.use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        return cursor.fetchone()[0]


def write(db: Connection, body: str = "x") -> None:
    with use_master(), db.cursor() as cursor:
        cursor.execute("INSERT INTO message (body) VALUES (%s)", (body,))


def servers(db: Connection) -> list[str]:
    return [query["server"] for query in db.queries]


@contextmanager
def read_only(pair: MariaDBPair, name: str = "master") -> Iterator[None]:
    with closing(pair.admin(name)) as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = ON")
        yield
        cursor.execute("SET GLOBAL read_only = OFF")


class TestChoosing:
    def test_reads_are_distributed_by_weight(
        self, make: Make, pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("replswitch.engine.weights.random", random.Random(1).random)
        one, two = pair.slaves
        db = make(master={**pair.master, "weight": 1}, slaves=[{**one, "weight": 2}, {**two, "weight": 7}])
        for _ in range(400):
            read(db)
        by_port = {str(port): 0 for port in (pair.master["port"], one["port"], two["port"])}
        for server in servers(db):
            by_port[server.rpartition(":")[2]] += 1
        assert list(by_port.values()) == [pytest.approx(share, abs=30) for share in (40, 80, 280)]

    @pytest.mark.parametrize("weight", [0, -1, "2", None, True])
    def test_a_wrong_weight_is_refused(self, make: Make, pair: MariaDBPair, weight: Any) -> None:
        with pytest.raises(replswitch.ConfigurationError, match='"weight" of slave number 1'):
            make(slaves=[{**pair.slaves[0], "weight": weight}])

    def test_with_fallback_error_a_read_without_a_slave_raises(self, make: Make, pair: MariaDBPair) -> None:
        db = make(fallback="error")
        pair.kill("slave")
        assert read(db) == 0
        pair.kill("slave2")
        with pytest.raises(NoServerError, match='"fallback" is "error"'):
            read(db)
        write(db)  # the master itself is not concerned

    def test_with_fallback_error_the_master_serves_a_read_of_a_write_that_no_slave_has(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make(fallback="error")
        for name in pair.slave_names:
            pair.stop_slave(name)
        with use_slave():
            write(db)
            assert read(db) == 1


class TestOutOfRotation:
    def test_f2_a_dead_slave_is_tried_once_and_not_by_each_reader(self, make: Make, pair: MariaDBPair) -> None:
        db = make(downtime=60)
        pair.kill("slave")
        before = replswitch.stats()["rest"]
        for _ in range(40):
            assert read(db) == 0
        rested = {key: count - before.get(key, 0) for key, count in replswitch.stats()["rest"].items()}
        assert sum(rested.values()) == 1
        assert len(set(servers(db))) == 1

    def test_f2_a_slave_that_is_up_again_serves_after_downtime(self, make: Make, pair: MariaDBPair) -> None:
        db = make(downtime=0.3)
        pair.kill("slave")
        for _ in range(20):
            read(db)
        pair.start("slave")
        time.sleep(0.3)
        db.reset_queries()
        for _ in range(40):
            read(db)
        assert len(set(servers(db))) == 2

    def test_f2_a_slave_that_does_not_answer_delays_one_read_by_the_time_out(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
            slaves = [pair.slaves[0], {"port": silent.getsockname()[1], "connect_timeout": 1}]
            db = make(slaves=slaves, downtime=60)
            for _ in range(30):
                read(db)
            silent.setblocking(False)
            silent.accept()[0].close()
            with pytest.raises(BlockingIOError):
                silent.accept()

    def test_f1_a_read_without_an_answer_runs_on_another_server(self, make: Make, pair: MariaDBPair) -> None:
        db = make(slaves=[{**pair.slaves[0], "read_timeout": 2, "connect_timeout": 2}])
        assert read(db) == 0
        # A stopped process still accepts packets and connections, as with a firewall that drops packets.
        with stopped(pair, "slave"):
            assert read(db) == 0
        assert [query["db"] for query in db.queries] == [SLAVE, SLAVE, MASTER]


@contextmanager
def stopped(pair: MariaDBPair, name: str) -> Iterator[None]:
    """Let a server's process sleep: return when each of its threads has stopped, which the signal does not wait for."""
    with closing(pair.admin(name)) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT @@pid_file AS file")
        file = cursor.fetchone()[0]
    pid = int(Path(file).read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        while not all(state == "T" for state in thread_states(pid)):
            time.sleep(0.01)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def thread_states(pid: int) -> list[str]:
    """Return the state of each thread of a process, one letter each: "T" is stopped (proc(5))."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


class TestLinksComeBack:
    @pytest.mark.parametrize("how", ["refuse", "cut"], ids=["connection refused", "connection cut in the greeting"])
    def test_a_read_whose_slave_is_unreachable_leaks_no_connection(
        self, make: Make, pair: MariaDBPair, how: str
    ) -> None:
        with Proxy(pair.slaves[0]["port"]) as proxy, uncollected():
            db = make(slaves=[{**pair.slaves[0], "port": proxy.port}], downtime=0)
            if how == "refuse":
                proxy.refuse()
            else:
                proxy.cut_after(20)  # in the middle of the server's greeting
            for _ in range(10):
                read(db)
        assert {query["db"] for query in db.queries} == {MASTER}
        assert connections(pair, at_most=1) <= 1

    def test_a_transaction_that_loses_its_slave_leaks_no_connection(self, make: Make, pair: MariaDBPair) -> None:
        with Proxy(pair.slaves[0]["port"]) as proxy, uncollected():
            db = make(slaves=[{**pair.slaves[0], "port": proxy.port}], downtime=0)
            for _ in range(5):
                read(db)
                db.begin()
                with db.use_slave():
                    read(db)
                    proxy.cut()
                    for _ in range(2):
                        with pytest.raises(db.OperationalError):
                            read(db)
                db.rollback()
            assert not [one for one in gc.get_objects() if type(one) is Block]

    def test_a_link_in_use_while_its_pool_is_emptied_is_closed_afterwards(self, make: Make, pair: MariaDBPair) -> None:
        db = make(slaves=[pair.slaves[0]])
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with db.use_slave():
                read(db)
                held.set()
                over.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        with uncollected():
            with killed_while_it_reads(pair, db) as cursor:
                assert cursor.fetchone() == (0, 1)
            over.set()
            thread.join()
            assert connections(pair, "slave", at_most=1) == 1  # the one that took the killed one's place


@contextmanager
def killed_while_it_reads(pair: MariaDBPair, db: Connection, name: str = "slave") -> Iterator[Any]:
    """Read in slave state on a connection that is killed meanwhile; yield the cursor."""
    with db.use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        with killed_while_it_sleeps(pair, name, cursor.fetchone()[0]) as sleep:
            cursor.execute(f"SELECT {sleep}, 1")
        yield cursor


@contextmanager
def uncollected() -> Iterator[None]:
    """Let nothing be freed that its own references do not free."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def connections(pair: MariaDBPair, name: str = "master", at_most: int = 0) -> int:
    """How many the application has; waits a while for those that are ending."""
    until = time.monotonic() + 30
    with closing(pair.admin(name)) as admin, admin.cursor() as cursor:
        while True:
            cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'shop'")
            count = int(cursor.fetchone()[0])
            if count <= at_most or time.monotonic() > until:
                return count
            time.sleep(0.05)


class TestReadsThatFail:
    def test_f1_a_killed_connection_is_replaced_and_the_slave_stays_in_rotation(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make()
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            number = cursor.fetchone()[0]
            name = "slave" if str(pair.slaves[0]["port"]) in servers(db)[0] else "slave2"
            with killed_while_it_sleeps(pair, name, number) as sleep:
                cursor.execute(f"SELECT {sleep}, 1")
            assert cursor.fetchone() == (0, 1)
        assert len(set(servers(db))) == 1
        assert not db.database.rotation.resting

    def test_f1_a_killed_query_raises_and_does_not_run_again(self, make: Make, pair: MariaDBPair) -> None:
        db = make()
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            number = cursor.fetchone()[0]
            name = "slave" if str(pair.slaves[0]["port"]) in servers(db)[0] else "slave2"
            end_query = partial(execute, pair, name, f"KILL QUERY {number}")
            with while_it_sleeps(pair, name, number, end_query) as sleep, pytest.raises(db.Error) as raised:
                cursor.execute(f"SELECT id FROM message UNION SELECT {sleep} + benchmark(2000000000, 1)")
        assert raised.value.args[0] == 1317
        assert len(db.queries) == 2

    def test_f1_a_query_over_max_statement_time_raises_and_does_not_run_again(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make()
        with db.use_slave(), db.cursor() as cursor, pytest.raises(db.Error) as raised:
            cursor.execute(
                "SET STATEMENT max_statement_time = 0.1 FOR "
                "SELECT COUNT(*) FROM seq_1_to_1000000 one, seq_1_to_1000000 two"
            )
        assert raised.value.args[0] == 1969
        assert len(db.queries) == 1

    def test_f1_a_read_in_a_transaction_on_a_lost_slave_raises_until_the_rollback(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make(slaves=[pair.slaves[0]], downtime=60)
        with db.use_slave():
            db.begin()
            read(db)
            pair.kill("slave")
            with pytest.raises(db.OperationalError):
                read(db)
            with pytest.raises(db.OperationalError):
                read(db)
            db.rollback()
            assert read(db) == 0
        assert db.queries[-1]["db"] == MASTER


def execute(pair: MariaDBPair, name: str, sql: str) -> None:
    with closing(pair.admin(name)) as admin, admin.cursor() as cursor:
        cursor.execute(sql)


class TestLagLimit:
    def test_a_slave_with_stopped_replication_exceeds_max_lag_and_serves_no_reads(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        pair.stop_slave("slave2")
        db = make(max_lag=5)
        for _ in range(20):
            read(db)
        assert {server.rpartition(":")[2] for server in servers(db)} == {str(pair.slaves[0]["port"])}

    def test_without_the_right_to_ask_for_the_lag_positions_are_compared(
        self, make: Make, pair: MariaDBPair, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr("replswitch.engine.lag.EVERY", 0.2)
        with closing(pair.admin()) as admin, admin.cursor() as cursor:
            cursor.execute("CREATE OR REPLACE USER plain@'%' IDENTIFIED BY 'x'")
            cursor.execute("GRANT ALL ON shop.* TO plain@'%'")
        pair.wait_caught_up()
        plain = {"user": "plain", "password": "x"}
        db = make(master={**pair.master, **plain}, slaves=[{**slave, **plain} for slave in pair.slaves], max_lag=1)
        pair.stop_slave("slave2")
        write(db)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            read(db)
            time.sleep(0.02)
        db.reset_queries()
        for _ in range(20):
            read(db)
        assert {server.rpartition(":")[2] for server in servers(db)} == {str(pair.slaves[0]["port"])}


class TestMaster:
    def test_f3_a_write_to_a_master_turned_read_only_says_that_it_is_read_only(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make()
        write(db)
        with read_only(pair):
            with pytest.raises(NoServerError, match=r"is read-only.*point the master's host name to it"):
                write(db)
            assert read(db) in (0, 1)
        write(db)

    def test_a_write_goes_to_the_server_that_the_master_s_name_points_to(self, make: Make, pair: MariaDBPair) -> None:
        with Proxy(pair.master["port"]) as name:
            db = make(master={**pair.master, "port": name.port}, slaves=pair.slaves)
            write(db)
            pair.wait_caught_up()
            with read_only(pair), closing(pair.admin("slave")) as admin, admin.cursor() as cursor:
                cursor.execute("SET GLOBAL read_only = OFF")
                name.target = pair.slaves[0]["port"]
                write(db, "after")  # refused by the old master first, and run once on the new one
                cursor.execute("SELECT COUNT(*) FROM shop.message WHERE body = 'after'")
                assert cursor.fetchone() == (1,)
                cursor.execute("SET GLOBAL read_only = ON")
                cursor.execute("SET sql_log_bin = 0")
                cursor.execute("DELETE FROM shop.message WHERE body = 'after'")
                cursor.execute("STOP SLAVE")
                cursor.execute("RESET MASTER")
                cursor.execute("START SLAVE")

    def test_f3_an_open_link_to_a_former_master_loses_no_write(self, make: Make, pair: MariaDBPair) -> None:
        with Proxy(pair.master["port"]) as name:
            db = make(master={**pair.master, "port": name.port}, slaves=[pair.slaves[1]])
            opened, over = threading.Event(), threading.Event()

            def hold() -> None:
                with use_master(), db.cursor() as cursor:
                    cursor.execute("SELECT 1")
                    opened.set()
                    over.wait(10)

            thread = threading.Thread(target=hold)
            thread.start()
            opened.wait(10)
            pair.promote("slave")
            name.target = pair.master["port"]
            pair.stop_slave("master")
            pair.stop_slave("slave2")
            seen = []

            def look(token: str) -> None:
                with replswitch.resume(token):
                    seen.append(read(db))
                with replswitch.resume(token), use_master(), db.cursor() as cursor:
                    cursor.execute("SELECT COUNT(*) FROM message")
                    seen.append(cursor.fetchone()[0])

            with db.use_slave():
                write(db)  # on a new link; nothing has shown yet that the master is another one
                over.set()
                thread.join()
                thread = threading.Thread(target=look, args=(replswitch.carry(),))  # with the link of the thread before
                thread.start()
                thread.join()
            assert seen == [1, 1]

    def test_f3_the_error_names_a_master_that_does_not_answer_the_position_query(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        timeouts = {"connect_timeout": 2, "read_timeout": 2}
        with Proxy(pair.master["port"]) as name:
            db = make(driver="mysqlclient", master={**pair.master, "port": name.port, **timeouts}, slaves=pair.slaves)
            with (
                db.cursor() as cursor
            ):  # outside any scope: it counts for none, and the next scope queries its position
                cursor.execute("INSERT INTO message (body) VALUES ('x')")
            name.drop()
            with pytest.raises(NoServerError, match=r"The master .* cannot be reached"):
                write(db)

    def test_a_write_refused_in_a_transaction_on_a_read_only_master_is_not_tried_again(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make()
        db.begin()
        write(db)
        with read_only(pair), pytest.raises(NoServerError, match="is read-only"):
            write(db)
        with pytest.raises(db.OperationalError):
            db.commit()
        db.rollback()
        assert read(db) == 0

    def test_f3_without_a_master_reads_continue_and_writes_fail(self, make: Make, pair: MariaDBPair) -> None:
        db = make()
        write(db)
        pair.wait_caught_up()
        pair.kill("master")
        assert read(db) == 1
        with pytest.raises(NoServerError, match=str(pair.master["port"])):
            write(db)
        assert read(db) == 1


class TestReadsOnTheMaster:
    """In slave state, because no slave has what must be seen; and then the master fails."""

    @pytest.fixture
    def db(self, make: Make, pair: MariaDBPair) -> Iterator[Connection]:
        db = make(slaves=[pair.slaves[0]])
        pair.stop_slave("slave")
        with db.use_slave():
            write(db)
            assert read(db) == 1
            assert db.queries[-1] | {"db": MASTER, "reason": "own-write"} == db.queries[-1]
            yield db

    def test_f3_a_read_on_a_lost_master_runs_again_on_a_read_only_link(self, db: Connection, pair: MariaDBPair) -> None:
        with killed_while_it_reads(pair, db, "master") as cursor:
            assert cursor.fetchone() == (0, 1)
        last = db.queries[-1]
        assert (last["db"], last["reason"], last["server"]) == (SLAVE, "no-master", f"127.0.0.1:{pair.master['port']}")
        assert read(db) == 1

    def test_f3_a_read_lost_on_the_master_runs_on_a_slave_that_has_caught_up(
        self, db: Connection, pair: MariaDBPair
    ) -> None:
        pair.start_slave("slave")
        pair.wait_caught_up()
        pair.kill("master")
        assert read(db) == 1
        last = db.queries[-1]
        assert (last["db"], last["reason"], last["server"]) == (
            SLAVE,
            "no-master",
            f"127.0.0.1:{pair.slaves[0]['port']}",
        )

    def test_p3_with_a_marker_by_time_only_the_server_under_the_master_s_name_is_read(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make(slaves=[pair.slaves[0]])
        seen: list[Any] = []

        def application(environ: Any, start_response: Any) -> list[bytes]:
            with killed_while_it_reads(pair, db, "master") as cursor:
                seen.append(cursor.fetchone())
            seen.append(db.queries[-1]["server"])
            pair.kill("master")
            with pytest.raises(NoServerError):
                read(db)
            start_response("200 OK", [])
            return []

        environ = {"HTTP_COOKIE": f"just_updated={MarkerSigner('secret').write(Marker(time.time()))}"}
        setup_testing_defaults(environ)
        ReplicationMiddleware(application, secret="secret")(environ, lambda *_: lambda _: None)
        assert seen == [(0, 1), f"127.0.0.1:{pair.master['port']}"]

    def test_f3_the_error_of_a_read_without_any_server_names_the_master(
        self, db: Connection, pair: MariaDBPair
    ) -> None:
        pair.kill("master")
        with pytest.raises(NoServerError, match=rf"The master 127\.0\.0\.1:{pair.master['port']} cannot be reached"):
            read(db)

    def test_f3_the_error_names_a_master_that_dies_during_a_read(self, db: Connection, pair: MariaDBPair) -> None:
        with db.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            with (
                while_it_sleeps(pair, "master", cursor.fetchone()[0], partial(pair.kill, "master")) as sleep,
                pytest.raises(NoServerError, match=r"The master .* cannot be reached"),
            ):
                cursor.execute(f"SELECT {sleep}")

    def test_f1_a_write_whose_response_is_lost_does_not_run_again(self, make: Make, pair: MariaDBPair) -> None:
        with Proxy(pair.master["port"]) as proxy:
            db = make(master={**pair.master, "port": proxy.port}, slaves=[pair.slaves[0]])
            pair.stop_slave("slave")
            with db.use_slave(), db.cursor() as cursor:
                write(db)
                assert read(db) == 1
                pair.start_slave("slave")
                pair.wait_caught_up()
                proxy.cut_after(0)
                with pytest.raises(NoServerError, match=r"lost during a write, at .*It is not known"):
                    cursor.execute("INSERT INTO message (body) VALUES ('once')")
                proxy.restore()
            with db.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM message WHERE body = 'once'")
                assert cursor.fetchone() == (1,)

    def test_f3_a_read_raises_when_the_master_and_all_slaves_fail(self, make: Make, pair: MariaDBPair) -> None:
        with Proxy(pair.slaves[0]["port"]) as proxy:
            db = make(slaves=[{**pair.slaves[0], "port": proxy.port}])
            pair.kill("master")
            proxy.cut_after(1000)
            with db.use_slave(), db.cursor() as cursor, pytest.raises(NoServerError, match="Can't connect"):
                cursor.execute("SELECT REPEAT('x', 5000)")


@contextmanager
def full(pair: MariaDBPair) -> Iterator[None]:
    """The master takes no further connections."""
    with closing(pair.admin("master")) as admin, admin.cursor() as cursor, ExitStack() as opened:
        cursor.execute("SET GLOBAL max_connections = 10")
        try:
            with suppress(pymysql.OperationalError):  # too many
                while True:
                    opened.enter_context(closing(pair.connect("master")))
            yield
        finally:
            cursor.execute("SET GLOBAL max_connections = DEFAULT")


class TestMasterThatRefusesWrites:
    """With mysqlclient, reads of what no slave has run on the master by links that refuse writes."""

    @pytest.fixture
    def db(self, make: Make, pair: MariaDBPair) -> Connection:
        db = make(driver="mysqlclient", slaves=[pair.slaves[0]])
        read(db)
        pair.stop_slave("slave")
        return db

    def test_a_master_with_too_many_connections_serves_reads_over_the_open_link(
        self, db: Connection, pair: MariaDBPair
    ) -> None:
        with use_master():
            write(db)
            with full(pair):
                assert read(db) == 1
            assert db.queries[-1]["db"] == MASTER

    def test_a_read_lost_on_a_read_only_link_to_the_master_runs_again_and_is_not_recorded(
        self, db: Connection, pair: MariaDBPair
    ) -> None:
        with use_master(), db.use_slave(), db.cursor() as cursor:
            write(db)
            cursor.execute("SELECT @@tx_read_only, CONNECTION_ID()")
            refuses, number = cursor.fetchone()
            assert refuses == 1
            with killed_while_it_sleeps(pair, "master", number) as sleep:
                cursor.execute(f"SELECT {sleep}, COUNT(*) FROM message")
            assert cursor.fetchone() == (0, 1)
            frame = stack()
            assert frame is not None
            assert frame.scope.wrote is not None
            assert frame.scope.wrote.written_at is None


@pytest.mark.parametrize(
    ("code", "message", "fault"),
    [
        (1020, "Record has changed since last read", Fault.DEADLOCK),
        (1205, "Lock wait timeout exceeded", Fault.CONFLICT),
        (1213, "Deadlock found", Fault.DEADLOCK),
        (1317, "Query execution was interrupted", Fault.OTHER),
        (1290, "running with the --read-only option", Fault.READ_ONLY),
        (1290, "running with the --super-read-only option", Fault.READ_ONLY),
        (1290, "running with the --secure-file-priv option", Fault.OTHER),
        (1792, "in a READ ONLY transaction", Fault.REFUSED),
        (1836, "Running in read-only mode", Fault.READ_ONLY),
        (1040, "Too many connections", Fault.FULL),
        (1047, "WSREP has not yet prepared node for application use", Fault.DOWN),
        (1047, "Unknown command", Fault.OTHER),
        (1053, "Server shutdown in progress", Fault.DOWN),
        (3032, "The server is currently in offline mode", Fault.DOWN),
        (1146, "Table 'shop.x' doesn't exist", Fault.UNDEFINED),
        (1054, "Unknown column 'x'", Fault.UNDEFINED),
        (2003, "Can't connect", Fault.UNSENT),
        (2006, "Server has gone away", Fault.UNSENT),
        (2013, "Lost connection to MySQL server during query", Fault.LOST),
        (2013, "Lost connection to MySQL server during query (timed out)", Fault.TIMED_OUT),
        (1927, "Connection was killed", Fault.LOST),
        (4031, "The client was disconnected by the server because of inactivity", Fault.UNSENT),
        ("HY000", "not a code", Fault.OTHER),
    ],
)
def test_the_meaning_of_an_error_of_mariadb_and_mysql(code: Any, message: str, fault: Fault) -> None:
    assert PYMYSQL.classify(pymysql.OperationalError(code, message)) is fault
