"""The engine on real servers, through connect()."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from tests.ended_links import killed_while_it_sleeps

import replswitch
from replswitch import MASTER, SLAVE, Connection, NoServerError, SlaveWriteError
from replswitch.decorators import use_master, use_slave
from replswitch.drivers import load_driver
from replswitch.state import stack
from replswitch.testing import MariaDBPair, Proxy, SQLitePair

Make = Callable[..., Connection]

DRIVERS = pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])


@pytest.fixture
def pair(message_pair: MariaDBPair) -> MariaDBPair:
    return message_pair


@pytest.fixture
def driver() -> str:
    return "pymysql"


@pytest.fixture
def make(pair: MariaDBPair, driver: str) -> Iterator[Make]:
    with ExitStack() as opened:

        def connect(**options: Any) -> Connection:
            arguments = {
                "master": pair.master, "slaves": pair.slaves[:1], "driver": driver, "debug": True, **options
            }  # fmt: skip
            return opened.enter_context(closing(replswitch.connect(**arguments)))

        yield connect


def run(db: Connection, sql: str, *args: Any) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql, args or None)
        return cursor.fetchall() if cursor.description else ()


def count(db: Connection) -> int:
    return int(run(db, "SELECT COUNT(*) FROM message")[0][0])


def insert(db: Connection) -> None:
    run(db, "INSERT INTO message (body) VALUES ('x')")


def on_master(pair: MariaDBPair, sql: str) -> Any:
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def last(db: Connection) -> tuple[str, str]:
    return db.queries[-1]["db"], db.queries[-1]["reason"]


class TestFirstStatementOfATransaction:
    def test_s5_a_first_statement_whose_slave_fails_runs_on_another_server(self, make: Make, pair: MariaDBPair) -> None:
        with Proxy(pair.slaves[0]["port"]) as proxy:
            db = make(slaves=[{**pair.slaves[0], "port": proxy.port}])
            with db.use_slave():
                count(db)
                db.begin()
                proxy.refuse()
                proxy.cut()
                assert count(db) == 0
                db.commit()
        assert last(db) == (MASTER, "no-slave")

    def test_f3_the_first_read_of_a_transaction_runs_on_another_server_if_the_master_is_lost(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make()
        pair.stop_slave("slave")
        with use_slave():
            with use_master():
                insert(db)
            assert count(db) == 1
            assert last(db) == (MASTER, "own-write")
            pair.start_slave("slave")
            pair.wait_caught_up()
            pair.kill("master")
            db.begin()
            assert count(db) == 1
            with pytest.raises(NoServerError, match="cannot be reached"):
                insert(db)
            db.rollback()

    def test_f3_a_transaction_whose_first_statement_loses_the_master_reads_on_another_server(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        db = make()
        pair.stop_slave("slave")
        with use_slave():
            with use_master():
                insert(db)
                link = run(db, "SELECT CONNECTION_ID()")[0][0]
            db.begin()
            with killed_while_it_sleeps(pair, "master", link) as sleep:
                assert run(db, f"SELECT {sleep}, COUNT(*) FROM message") == ((0, 1),)
            assert last(db) == (SLAVE, "no-master")
            assert count(db) == 1  # the same snapshot
            with pytest.raises(NoServerError, match="cannot be reached"):
                insert(db)
            db.rollback()
            insert(db)
        pair.start_slave("slave")
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((2,),)

    def test_f5_a_begin_that_fails_on_the_master_is_counted_and_tried_again(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        with Proxy(pair.master["port"]) as name:
            db = make(master={**pair.master, "port": name.port})
            insert(db)
            before = sum(replswitch.stats()["master-lost"].values())
            db.begin()
            name.cut()
            insert(db)
            db.commit()
            assert sum(replswitch.stats()["master-lost"].values()) <= before + 1
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((2,),)

    def test_s5_the_loss_of_a_slave_after_a_read_ends_the_transaction(self, make: Make, pair: MariaDBPair) -> None:
        with Proxy(pair.slaves[0]["port"]) as proxy:
            db = make(slaves=[{**pair.slaves[0], "port": proxy.port}])
            with db.use_slave():
                db.begin()
                count(db)
                proxy.cut()
                for _ in range(2):
                    with pytest.raises(db.OperationalError):
                        count(db)
                with pytest.raises(db.OperationalError), use_master():
                    insert(db)
                db.rollback()
                assert count(db) == 0


class TestRotation:
    @DRIVERS
    def test_f1_an_oversized_parameter_raises_and_takes_no_server_out_of_rotation(
        self, make: Make, pair: MariaDBPair, driver: str
    ) -> None:
        for name in ("master", "slave", "slave2"):
            with closing(pair.admin(name)) as admin, admin.cursor() as cursor:
                cursor.execute("SET GLOBAL max_allowed_packet = 1048576")
        db = make(slaves=pair.slaves)
        with db.use_slave(), pytest.raises(db.Error):
            run(db, "SELECT LENGTH(%s)", "x" * 3_000_000)
        assert not db.database.rotation.resting
        with db.use_slave():
            assert count(db) == 0
        assert last(db)[0] == SLAVE

    @pytest.mark.parametrize(
        "wrong",
        [{"password": "wrong"}, {"database": "nowhere"}, {"user": "nobody"}, {"ssl_verify_cert": True, "ssl_ca": "/"}],
        ids=["password", "database", "user", "TLS"],
    )
    def test_f4_no_read_fails_if_a_slave_refuses_the_connection(
        self, make: Make, pair: MariaDBPair, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        if "ssl_ca" in wrong:
            wrong = {"ssl": {"ca": os.devnull}}
        db = make(slaves=[{**pair.slaves[0], **wrong}, pair.slaves[1]], downtime=60)
        for _ in range(30):
            with db.use_slave():
                count(db)
        port = str(pair.slaves[1]["port"])
        assert {query["server"].rpartition(":")[2] for query in db.queries} == {port}
        assert len([one for one in caplog.records if "out of rotation" in one.getMessage()]) == 1

    def test_f4_a_slave_port_with_another_protocol_leaves_rotation_and_fails_no_read(
        self, make: Make, pair: MariaDBPair
    ) -> None:
        with http_server() as port:
            db = make(slaves=[{**pair.slaves[0], "port": port}, pair.slaves[1]], downtime=60)
            for _ in range(20):
                with db.use_slave():
                    count(db)
        assert len(db.database.rotation.resting) == 1

    def test_f4_a_table_that_has_not_arrived_is_read_on_the_master(self, make: Make, pair: MariaDBPair) -> None:
        db = make()
        pair.stop_slave("slave")
        on_master(pair, "CREATE OR REPLACE TABLE fresh (id INT)")
        on_master(pair, "ALTER TABLE message ADD COLUMN extra INT")
        with db.use_slave():
            assert run(db, "SELECT COUNT(*) FROM fresh") == ((0,),)
            assert last(db) == (MASTER, "not-replicated")
        with db.use_slave():
            assert run(db, "SELECT MAX(extra) FROM message") == ((None,),)
        with db.use_slave(), pytest.raises(db.ProgrammingError):
            run(db, "SELECT * FROM never")
        on_master(pair, "DROP TABLE fresh")
        pair.start_slave("slave")


class http_server:  # noqa: N801 - a context manager
    """A port that answers as an HTTP server does."""

    def __enter__(self) -> int:
        import socket  # noqa: PLC0415 - only here

        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._answer, daemon=True).start()
        return int(self._socket.getsockname()[1])

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer:
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class TestSessionsThatWereChanged:
    @DRIVERS
    @pytest.mark.parametrize(
        "change",
        [
            "SET @who = 'ann'",
            "SET time_zone = '+05:00'",
            "SET foreign_key_checks = 0",
            "USE information_schema",
            "SET NAMES latin1",
        ],
    )
    def test_s8_a_write_after_a_change_of_its_session_raises_and_does_not_move(
        self, make: Make, pair: MariaDBPair, driver: str, change: str
    ) -> None:
        db = make()
        with db.use_slave():
            run(db, change)
            with pytest.raises(SlaveWriteError, match="changed the session"):
                run(db, "INSERT INTO shop.message (body) VALUES (@who)")
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((0,),)

    @DRIVERS
    @pytest.mark.parametrize("control", ["BEGIN", "START TRANSACTION", "SAVEPOINT a", "COMMIT"])
    def test_s8_transaction_control_does_not_count_as_a_change_of_the_session(
        self, make: Make, pair: MariaDBPair, driver: str, control: str
    ) -> None:
        db = make()
        with db.use_slave():
            run(db, control)
            insert(db)
            db.commit()
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((1,),)

    @DRIVERS
    @pytest.mark.parametrize("change", ["SET @who = 'ann'", "SELECT @who := 'ann'"])
    def test_s11_the_next_request_gets_a_clean_link(self, make: Make, driver: str, change: str) -> None:
        db = make()
        for state in (use_slave, use_master):
            with state():
                run(db, change)
            with state():
                assert run(db, "SELECT @who") == ((None,),)

    @DRIVERS
    def test_s8_a_write_whose_text_looks_like_a_change_of_the_session_moves(
        self, make: Make, pair: MariaDBPair, driver: str
    ) -> None:
        db = make()
        with db.use_slave():
            run(db, "INSERT INTO message (body) VALUES ('x := GET_LOCK')")
        assert on_master(pair, "SELECT body FROM message") == (("x := GET_LOCK",),)

    @DRIVERS
    def test_s11_a_lock_ends_with_its_request(self, make: Make, driver: str) -> None:
        db = make()
        for state in (use_slave, use_master):
            with state():
                assert run(db, "SELECT Get_Lock('till', 0)") == ((1,),)
            with state():
                assert run(db, "SELECT GET_LOCK('till', 5)") == ((1,),), "waits for the link to close, if it must"
                assert run(db, "SELECT IS_USED_LOCK('till') = CONNECTION_ID(), RELEASE_LOCK('till')") == ((1, 1),)
                assert run(db, "SELECT RELEASE_LOCK('till')") != ((1,),), "it was taken once, and not twice by one link"

    def test_s11_a_temporary_table_of_sqlite_ends_with_its_request(self, sqlite_pair: SQLitePair) -> None:
        with replswitch.connect(sqlite_pair.master, sqlite_pair.slaves, driver="sqlite3") as db:
            with use_master(), db.cursor() as cursor:
                cursor.execute("CREATE TEMP TABLE basket (n INTEGER)")
            with use_master(), db.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM sqlite_temp_master")
                assert cursor.fetchone() == (0,)

    def test_s8_force_moves_a_write_after_reads(self, make: Make, pair: MariaDBPair) -> None:
        db = make(on_slave_write="force")
        with db.use_slave():
            db.begin()
            count(db)
            insert(db)
            db.commit()
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((1,),)

    @pytest.mark.parametrize("slaves", [0, 1])
    def test_s8_a_write_does_not_wait_for_locks_of_its_own_reads(
        self, make: Make, pair: MariaDBPair, slaves: int
    ) -> None:
        command = "SET SESSION innodb_lock_wait_timeout = 1, tx_isolation = 'SERIALIZABLE'"
        servers = [{**each, "init_command": command} for each in (pair.master, *pair.slaves[:slaves])]
        db = make(master=servers[0], slaves=servers[1:], on_slave_write="force")
        insert(db)
        with db.use_slave():
            frame = stack()
            assert frame is not None
            frame.scope.held_back = bool(slaves)  # as the option rollout does
            db.begin()
            assert count(db) == 1
            with db.use_master():
                run(db, "UPDATE message SET body = 'new'")
            db.commit()
        assert on_master(pair, "SELECT body FROM message") == (("new",),)


@DRIVERS
class TestTransactionsBegunByAStatement:
    @pytest.mark.parametrize("begin", ["BEGIN", "START TRANSACTION", "SET autocommit = 0", "/* a comment */ begin"])
    def test_s5_commit_commits_and_rollback_rolls_back(
        self, make: Make, pair: MariaDBPair, driver: str, begin: str
    ) -> None:
        db = make()
        run(db, begin)
        insert(db)
        db.rollback()
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((0,),)
        run(db, begin)
        insert(db)
        db.commit()
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((1,),)

    def test_s5_statements_after_the_rollback_are_outside_the_transaction(
        self, make: Make, pair: MariaDBPair, driver: str
    ) -> None:
        db = make()
        run(db, "BEGIN")
        insert(db)
        db.rollback()
        insert(db)
        assert on_master(pair, "SELECT COUNT(*) FROM message") == ((1,),)

    def test_s5_a_write_in_a_transaction_begun_by_a_statement_is_seen_and_recorded_at_its_commit(
        self, make: Make, pair: MariaDBPair, driver: str
    ) -> None:
        db = make()
        pair.stop_slave("slave")
        with db.use_slave():
            with use_master():
                run(db, "BEGIN")
                insert(db)
                db.commit()
            assert count(db) == 1
            replswitch.carry()
            frame = stack()
            assert frame is not None
            assert frame.scope.wrote is not None
            assert frame.scope.wrote.written_at is None
        pair.start_slave("slave")

    def test_s5_a_transaction_begun_by_a_statement_on_a_slave_sees_an_own_write(
        self, make: Make, pair: MariaDBPair, driver: str
    ) -> None:
        db = make()
        with db.use_slave():
            run(db, "BEGIN")
            count(db)
            on_another_connection = make()
            with use_master():
                insert(on_another_connection)
            assert count(db) == 1
            db.rollback()


class TestCursors:
    @DRIVERS
    def test_s6_a_closed_cursor_keeps_rowcount_lastrowid_and_description(self, make: Make, driver: str) -> None:
        db = make()
        with db.cursor() as cursor:
            cursor.execute("INSERT INTO message (body) VALUES ('a'), ('b')")
        assert cursor.rowcount == 2
        assert cursor.lastrowid == 1
        with db.cursor() as cursor:
            cursor.execute("SELECT id FROM message")
        assert cursor.description[0][0] == "id"

    @DRIVERS
    @pytest.mark.parametrize("kind", ["Cursor", "SSCursor"])
    @pytest.mark.parametrize("end", ["close", "nextset"])
    def test_s8_a_refusal_that_arrives_after_rows_raises(
        self, make: Make, pair: MariaDBPair, driver: str, kind: str, end: str
    ) -> None:
        db = make()
        on_master(pair, "DROP PROCEDURE IF EXISTS p")
        on_master(pair, "CREATE PROCEDURE p() BEGIN SELECT 7; INSERT INTO message (body) VALUES ('x'); END")
        pair.wait_caught_up()
        with db.use_slave():
            cursor = db.cursor(getattr(load_driver(driver).module.cursors, kind))
            cursor.execute("CALL p()")
            assert tuple(cursor.fetchall()) == ((7,),)
            with pytest.raises(SlaveWriteError, match="already returned rows"):
                getattr(cursor, end)()
        assert count(db) == 0


FORK = """
import ctypes, json, os, sys
import replswitch

driver, master, slave, uses, ends = json.loads(sys.argv[1])
db = replswitch.connect(master, [slave], driver=driver)

def number(state):
    with state(), db.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        return cursor.fetchone()[0]

def both():
    return number(db.use_master), number(db.use_slave)

before = both()
read_end, write_end = os.pipe()
child = os.fork() if ends else ctypes.PyDLL(None).fork()  # which Python's own hooks do not see
if not child:
    mine = both() if uses else (0, 0)
    os.write(write_end, repr([ours == theirs for ours, theirs in zip(mine, before)]).encode())
    if ends:
        sys.exit(0)
    db.close()
    os._exit(0)
os.waitpid(child, 0)
print(os.read(read_end, 100).decode(), both() == before)
"""


def fork(pair: MariaDBPair, driver: str, *, uses: bool, ends: bool) -> str:
    """Fork in a process with one thread, as a server's is when it forks. Return what it has printed.

    What another thread has locked stays locked in the child, Python's own lock included, if Python does not see it.
    """
    arguments = json.dumps([driver, pair.master, pair.slaves[0], uses, ends])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORK, arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout


@DRIVERS
def test_s12_a_fork_that_python_does_not_see_opens_its_own_links(pair: MariaDBPair, driver: str) -> None:
    assert fork(pair, driver, uses=True, ends=False) == "[False, False] True\n"


@DRIVERS
@pytest.mark.parametrize("uses", [False, True], ids=["no statement in the child", "statements in the child"])
def test_s12_a_child_that_ends_leaves_the_sessions_of_the_parent_open(
    pair: MariaDBPair, driver: str, uses: bool
) -> None:
    assert fork(pair, driver, uses=uses, ends=True) == "[False, False] True\n"


@pytest.mark.parametrize(
    "error",
    [
        SlaveWriteError("refused", server="slave1.db", place="shop.py:1 in buy"),
        NoServerError("gone", server="master.db"),
        replswitch.RevertError("nothing"),
    ],
)
def test_f6_errors_survive_pickling_and_copying(error: Exception) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


class ReadOnlyMidway(list[Any]):
    """Arguments of ``executemany()``; the master turns read-only before the third."""

    def __init__(self, pair: MariaDBPair, *arguments: Any) -> None:
        super().__init__(arguments)
        self.pair = pair

    def __iter__(self) -> Iterator[Any]:
        for number, each in enumerate(super().__iter__()):
            if number == 2:
                set_read_only(self.pair, "ON")
            yield each


def set_read_only(pair: MariaDBPair, value: str) -> None:
    with closing(pair.admin()) as admin, admin.cursor() as cursor:
        cursor.execute(f"SET GLOBAL read_only = {value}")


def written() -> Any:
    """Return the positions that the running scope has written up to, None without; and whether it holds by time."""
    frame = stack()
    assert frame is not None
    wrote = frame.scope.all_written()
    return None if wrote is None else (list(wrote.positions), wrote.written_at is not None)


@DRIVERS
class TestSeveralStatementsInOneCall:
    """Outside a transaction, each of them is committed by itself (M1)."""

    UPDATE = "UPDATE message SET body = 'changed', id = %s WHERE id = %s"
    FIRST = "SELECT COUNT(*) FROM message WHERE body = 'first'"

    @pytest.fixture(autouse=True)
    def three_messages(self, pair: MariaDBPair) -> None:
        on_master(pair, "INSERT INTO message (id, body) VALUES (1, 'x'), (2, 'x'), (3, 'x')")
        pair.wait_caught_up()

    def changed(self, pair: MariaDBPair) -> int:
        return int(on_master(pair, "SELECT COUNT(*) FROM message WHERE body = 'changed'")[0][0])

    def test_m1_what_was_committed_before_an_error_is_in_the_marker(
        self, make: Make, pair: MariaDBPair, driver: str
    ) -> None:
        db = make()
        pair.stop_slave("slave")
        with use_slave():
            with use_master(), db.cursor() as cursor, pytest.raises(db.IntegrityError):
                cursor.executemany(self.UPDATE, [(1, 1), (2, 2), (1, 3)])
            assert self.changed(pair) == 2
            assert written() == ([db.database.set_name], False)
            assert run(db, "SELECT COUNT(*) FROM message WHERE body = 'changed'") == ((2,),)
        pair.start_slave("slave")

    def test_m1_what_was_committed_before_the_master_turned_read_only_is_in_the_marker(
        self, make: Make, pair: MariaDBPair, driver: str
    ) -> None:
        db = make()
        try:
            with use_master():
                cursor = db.cursor()
                with pytest.raises(NoServerError, match="earlier commits remain"):
                    cursor.executemany(self.UPDATE, ReadOnlyMidway(pair, (1, 1), (2, 2), (3, 3)))
                assert written() == ([db.database.set_name], False)
        finally:
            set_read_only(pair, "OFF")
        assert self.changed(pair) == 2

    def test_f3_a_procedure_that_has_written_does_not_run_again(
        self, make: Make, pair: MariaDBPair, driver: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_master(
            pair,
            "CREATE OR REPLACE PROCEDURE two() BEGIN INSERT INTO message (body) VALUES ('first'); "
            "WHILE NOT @@GLOBAL.read_only DO DO SLEEP(0.01); END WHILE; "
            "INSERT INTO message (body) VALUES ('second'); END",
        )
        db = make()
        insert(db)
        open_link = db._driver.open

        def open_when_writable(*arguments: Any, **options: Any) -> Any:
            set_read_only(pair, "OFF")
            return open_link(*arguments, **options)

        monkeypatch.setattr(db._driver, "open", open_when_writable)

        def turn_read_only() -> None:
            while on_master(pair, self.FIRST) == ((0,),):
                time.sleep(0.005)
            set_read_only(pair, "ON")

        turning = threading.Thread(target=turn_read_only, daemon=True)
        turning.start()
        try:
            with use_master():
                with pytest.raises(NoServerError, match="earlier commits remain"):
                    run(db, "CALL two()")
                assert written() == ([db.database.set_name], False)
        finally:
            turning.join()
            set_read_only(pair, "OFF")
        assert on_master(pair, self.FIRST) == ((1,),)

    def test_m1_a_read_only_master_s_refusal_is_no_write(self, make: Make, pair: MariaDBPair, driver: str) -> None:
        db = make()
        set_read_only(pair, "ON")
        try:
            with use_master():
                with pytest.raises(NoServerError, match="read-only"):
                    insert(db)
                assert written() is None
        finally:
            set_read_only(pair, "OFF")


@DRIVERS
def test_m1_a_write_in_an_unrecorded_block_makes_no_marker(make: Make, driver: str) -> None:
    db = make()
    with use_master():
        with replswitch.unrecorded():
            insert(db)
        assert replswitch.carry() == ""
        insert(db)
        assert replswitch.carry() != ""
