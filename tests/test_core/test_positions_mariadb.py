"""What the servers are asked, and what they tell: counted in the general log, on real servers.

Another kind of server that speaks the protocol is one more name in `SERVERS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from pymysql.cursors import Cursor, DictCursor, SSCursor, SSDictCursor

import replswitch
from replswitch import MASTER, SLAVE, Connection, PositionError
from replswitch.decorators import use_master
from replswitch.positions import MariaDBPosition, Position, clock
from replswitch.state import stack
from replswitch.testing import MariaDBPair

Make = Callable[..., Connection]

SERVERS = ["mariadb_pair"]
ASK = "SELECT @@GLOBAL.gtid_current_pos, @@server_id, @@hostname"
COUNT = "SELECT COUNT(*) FROM message"


@pytest.fixture(params=SERVERS)
def pair(request: pytest.FixtureRequest) -> MariaDBPair:
    made: MariaDBPair = request.getfixturevalue(request.param)
    with made.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS message")
        cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body LONGBLOB)")
    made.wait_caught_up()
    return made


@pytest.fixture
def make(pair: MariaDBPair) -> Iterator[Make]:
    with ExitStack() as closing:

        def connect(**options: Any) -> Connection:
            options = {"master": pair.master, "slaves": pair.slaves, "debug": True, **options}
            return closing.enter_context(replswitch.connect(**options))

        yield connect


@pytest.fixture
def db(make: Make) -> Connection:
    return make()


def run(db: Connection, sql: str, *kind: Any) -> Any:
    with db.cursor(*kind) as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def insert(db: Connection) -> None:
    run(db, "INSERT INTO message (body) VALUES ('x')")


def position_of(pair: MariaDBPair, server: str) -> Position:
    with pair.admin(server) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.gtid_current_pos")
        ((gtids,),) = cursor.fetchall()
        return MariaDBPosition.parse(gtids)


def recorded() -> Position | None:
    """The position that the running scope has recorded; None without a write."""
    frame = stack()
    assert frame is not None
    wrote = frame.scope.wrote
    if wrote is None:
        return None
    assert wrote.written_at is None
    (position,) = wrote.positions.values()
    return position


@contextmanager
def statements(pair: MariaDBPair) -> Iterator[tuple[list[str], list[str]]]:
    """What the master and the slave receive while the block runs."""
    with pair.statements("master") as master, pair.statements("slave") as slave:
        yield master, slave


class TestAsking:
    def test_a_slave_that_is_behind_is_asked_once_a_scope(self, db: Connection, pair: MariaDBPair) -> None:
        with db.use_slave():
            run(db, "SELECT 1")
        pair.stop_slave()
        insert(db)
        with statements(pair) as (master, slave), use_master():
            insert(db)
            insert(db)
            for _ in range(3):
                with db.use_slave():
                    run(db, COUNT)
        assert slave == [ASK]
        assert master == ["INSERT INTO message (body) VALUES ('x')"] * 2 + [COUNT] * 3

    def test_one_that_is_known_to_be_there_is_not_asked_again(self, db: Connection, pair: MariaDBPair) -> None:
        with db.use_slave():
            run(db, "SELECT 1")
        with use_master():
            insert(db)
            pair.wait_caught_up()
            token = replswitch.carry()
            with statements(pair) as (_, slave):
                for _ in range(3):
                    with db.use_slave():
                        run(db, COUNT)
        with statements(pair) as (_, later):
            for _ in range(3):
                with replswitch.resume(token), db.use_slave():
                    run(db, COUNT)
        assert slave == [ASK, COUNT, COUNT, COUNT]
        assert later == [COUNT] * 3

    def test_another_link_to_the_same_server_is_asked_who_it_leads_to(self, db: Connection, pair: MariaDBPair) -> None:
        """P2: a name may be a load balancer's."""
        with use_master():
            insert(db)
            pair.wait_caught_up()
            token = replswitch.carry()
            with db.use_slave():
                cursor = db.cursor()
                cursor.execute(COUNT)  # keeps its link
        with statements(pair) as (_, slave):
            for _ in range(2):
                with replswitch.resume(token), db.use_slave():
                    run(db, COUNT)
        cursor.close()
        assert slave.count(ASK) == 1
        assert slave.count(COUNT) == 2

    def test_a_transaction_asks_before_it_begins(self, db: Connection, pair: MariaDBPair) -> None:
        with db.use_slave():
            run(db, "SELECT 1")
        with use_master():
            insert(db)
            pair.wait_caught_up()
            with statements(pair) as (_, slave):
                db.begin()
                with db.use_slave():
                    run(db, COUNT)
                db.commit()
        assert slave[:3] == [ASK, "BEGIN", COUNT]


class TestTelling:
    """P1: the answer to a write brings its position, without a round trip."""

    @pytest.mark.parametrize("kind", [Cursor, DictCursor, SSCursor, SSDictCursor])
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO message (body) VALUES ('x')",
            "INSERT INTO message (body) VALUES ('x') RETURNING id",
            "INSERT INTO message (body) VALUES ('x'), ('y'), ('z') RETURNING id, body",
            "DELETE FROM message RETURNING id",
            "ALTER TABLE message COMMENT 'x'",
            "CALL post()",
        ],
    )
    def test_in_autocommit(self, db: Connection, pair: MariaDBPair, kind: Any, sql: str) -> None:
        run(db, "CREATE OR REPLACE PROCEDURE post() BEGIN SELECT 1; INSERT INTO message (body) VALUES ('p'); END")
        insert(db)
        with use_master(), statements(pair) as (master, _):
            run(db, sql, kind)
            assert recorded() == position_of(pair, "master")
        assert master == [sql]

    def test_after_a_commit(self, db: Connection, pair: MariaDBPair) -> None:
        insert(db)
        with use_master(), statements(pair) as (master, _):
            db.begin()
            run(db, "INSERT INTO message (body) VALUES ('x') RETURNING id")
            assert recorded() is None
            db.commit()
            assert recorded() == position_of(pair, "master")
        assert len(master) == 3

    @pytest.mark.parametrize("use_unicode", [True, False])
    @pytest.mark.parametrize("kind", [Cursor, SSCursor])
    def test_behind_rows_whose_first_byte_is_that_of_the_end(
        self, make: Make, pair: MariaDBPair, kind: Any, use_unicode: bool
    ) -> None:
        """A length of eight bytes begins with 0xFE, as the packet behind the last row does."""
        master = {**pair.master, "use_unicode": use_unicode, "max_allowed_packet": 2**26}
        with pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SELECT @@GLOBAL.max_allowed_packet")
            ((allowed,),) = cursor.fetchall()
            cursor.execute("SET GLOBAL max_allowed_packet = 67108864")
        try:
            with use_master(), make(master=master) as db:
                length = 2**24 + 5
                rows = run(db, f"INSERT INTO message (body) VALUES ('') RETURNING REPEAT('x', {length}), 'end'", kind)
                ((body, end),) = rows
                assert (len(body), end) == (length, "end" if use_unicode else b"end")
                assert recorded() == position_of(pair, "master")
                assert len(run(db, COUNT)) == 1  # the packets are where they should be
        finally:
            with pair.admin() as admin, admin.cursor() as cursor:
                cursor.execute(f"SET GLOBAL max_allowed_packet = {allowed}")

    def test_rows_and_results_are_read_as_ever(self, db: Connection) -> None:
        run(
            db,
            "CREATE OR REPLACE PROCEDURE three() BEGIN SELECT 1 AS a; SELECT 2, 'b' FROM dual WHERE 0; SELECT 3; END",
        )
        with db.cursor() as cursor:
            cursor.execute("CALL three()")
            found = [(cursor.description[0][0], cursor.fetchall())]
            while cursor.nextset() and cursor.description:
                found.append((cursor.description[0][0], cursor.fetchall()))
        assert found == [("a", ((1,),)), ("2", ()), ("3", ((3,),))]
        with db.cursor() as cursor:
            assert cursor.execute("SELECT CAST('x' AS UNSIGNED), NULL, ''") == 1
            assert cursor.fetchall() == ((0, None, ""),)
            assert cursor._result.warning_count == 1

    def test_a_server_that_does_not_end_results_in_ok_packets_is_asked(
        self, make: Make, pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pymysql.constants import CLIENT  # noqa: PLC0415 - only here

        monkeypatch.setattr(CLIENT, "DEPRECATE_EOF", 0)  # as with a proxy that does not know it
        db = make()
        run(db, "SELECT 1")
        with use_master(), statements(pair) as (master, _):
            assert run(db, "INSERT INTO message (body) VALUES ('x'), ('y') RETURNING id") == ((1,), (2,))
            replswitch.carry()
            replswitch.carry()
            assert recorded() == position_of(pair, "master")
        assert master[1:] == ["SELECT @@SESSION.last_gtid"]

    @pytest.mark.parametrize("kind", [Cursor, SSCursor])
    def test_a_procedure_that_fails_after_a_write(self, db: Connection, pair: MariaDBPair, kind: Any) -> None:
        """An error tells nothing of the session; so the server is asked, and only then."""
        run(
            db,
            "CREATE OR REPLACE PROCEDURE fails() BEGIN INSERT INTO message (body) VALUES ('p');"
            " SIGNAL SQLSTATE '45000'; END",
        )
        pair.wait_caught_up()
        pair.stop_slave()
        with use_master():
            with pytest.raises(db.OperationalError, match="1644"):
                run(db, "CALL fails()", kind)
            with db.use_slave():
                assert run(db, COUNT) == ((1,),)
            assert recorded() == position_of(pair, "master")

    def test_an_error_without_a_write_is_none(self, db: Connection) -> None:
        with use_master():
            insert(db)
        with use_master():
            with pytest.raises(db.ProgrammingError):
                run(db, "SELECT nothing FROM nowhere")
            assert replswitch.carry() == ""
            with db.use_slave():
                run(db, "SELECT 1")
        assert db.queries[-1]["db"] == SLAVE


class TestWithoutPositions:
    """P3: the clock, and one log line."""

    @pytest.fixture(autouse=True)
    def unlogged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clock, "_logged", set())

    @pytest.fixture
    def unlogged_db(self, make: Make, pair: MariaDBPair) -> Connection:
        with pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute(f"GRANT BINLOG ADMIN ON *.* TO '{pair.master['user']}'@'%'")
        return make(master={**pair.master, "init_command": "SET SESSION sql_log_bin = 0"}, slaves=pair.slaves)

    def test_the_master_serves_the_rest_of_the_scope(self, unlogged_db: Connection) -> None:
        db = unlogged_db
        with use_master():
            insert(db)
            with db.use_slave():
                assert run(db, COUNT) == ((1,),)
            frame = stack()
            assert frame is not None
            assert frame.scope.wrote is not None
            assert frame.scope.wrote.written_at is not None
        assert (db.queries[-1]["db"], db.queries[-1]["reason"]) == (MASTER, "own-write")

    def test_one_log_line_says_so(self, unlogged_db: Connection, caplog: pytest.LogCaptureFixture) -> None:
        with unlogged_db.use_master():
            first = unlogged_db.cursor()
            first.execute(COUNT)  # keeps its link
        insert(unlogged_db)
        first.close()
        (line,) = [record for record in caplog.records if record.name == "replswitch.positions"]
        assert line.levelno == logging.WARNING
        assert "The master tells no positions, because its binary log is off." in line.getMessage()
        assert "`cookie_max_age`" in line.getMessage()

    def test_a_slave_whose_answer_is_no_position_does_not_serve(
        self, db: Connection, pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def nonsense(_: object) -> Any:
            raise PositionError("'x' is no GTID of MariaDB")

        monkeypatch.setattr(db._driver, "standing", nonsense)
        with use_master():
            insert(db)
            pair.wait_caught_up()
            with db.use_slave():
                assert run(db, COUNT) == ((1,),)
        assert (db.queries[-1]["db"], db.queries[-1]["reason"]) == (MASTER, "own-write")
        assert "A slave's position cannot be read, so the master serves: 'x' is no GTID" in caplog.text
