"""The position queries, and the positions that servers report: counted in the general log of real servers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pymysql.cursors import Cursor, DictCursor, SSCursor, SSDictCursor

import replswitch
from replswitch import MASTER, SLAVE, Connection, PositionError
from replswitch.decorators import use_master
from replswitch.positions import MariaDBPosition, MySQLPosition, Position, clock
from replswitch.state import stack
from replswitch.testing import MariaDBPair
from replswitch.testing.sessions import SessionPair

if TYPE_CHECKING:
    from tests.conftest import Questions, Served

Make = Callable[..., Connection]

servers = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)
# With mysqlclient the server reports nothing: test_mysqlclient.py has the queries instead.
told = pytest.mark.parametrize("served", ["mariadb", "mysql"], indirect=True)
# MySQL has no statement that writes and returns rows. A function can do both: see test_mysql.py.
returning = pytest.mark.parametrize("served", ["mariadb"], indirect=True)

COUNT = "SELECT COUNT(*) FROM message"


@pytest.fixture(autouse=True)
def pair(served: Served, make: Make) -> SessionPair:
    """The pair, with a table whose rows get their numbers from the server."""
    assert isinstance(served.pair, SessionPair)
    with served.pair.connect() as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE message")
        cursor.execute("CREATE TABLE message (id INT AUTO_INCREMENT PRIMARY KEY, body LONGBLOB)")
    served.pair.wait_caught_up()
    return served.pair


def run(db: Connection, sql: str, *kind: Any) -> Any:
    with db.cursor(*kind) as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def insert(db: Connection) -> None:
    run(db, "INSERT INTO message (body) VALUES ('x')")


def procedure(db: Connection, name: str, body: str) -> None:
    run(db, f"DROP PROCEDURE IF EXISTS {name}")
    run(db, f"CREATE PROCEDURE {name}() BEGIN {body} END")


def position_of(pair: SessionPair) -> Position:
    """Where the master is."""
    kind, variable = (
        (MariaDBPosition, "gtid_current_pos") if isinstance(pair, MariaDBPair) else (MySQLPosition, "gtid_executed")
    )
    with pair.admin() as plain, plain.cursor() as cursor:
        cursor.execute(f"SELECT @@GLOBAL.{variable}")
        ((gtids,),) = cursor.fetchall()
        return kind.parse(gtids)


@contextmanager
def recorded_whole(pair: SessionPair) -> Iterator[None]:
    """The writes of the block are those that its scope has recorded at the end."""
    before = position_of(pair)
    yield
    position, after = recorded(), position_of(pair)
    assert position is not None
    assert not before.includes(position)
    assert before.merge(position) == after


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
def statements(pair: SessionPair) -> Iterator[tuple[list[str], list[str]]]:
    """The statements that the master and the slave receive while the block runs."""
    with pair.statements("master") as master, pair.statements("slave") as slave:
        yield master, slave


@servers
class TestQueriesOfPositions:
    def test_a_slave_that_lags_is_asked_its_position_once_a_scope(
        self, db: Connection, pair: SessionPair, questions: Questions
    ) -> None:
        with db.use_slave():
            run(db, "SELECT 1")
        pair.stop_slave()
        with use_master():
            insert(db)
            replswitch.carry()  # the master was asked for its variables, once for each link
            with db.use_slave():
                run(db, COUNT)  # with mysqlclient by a link that refuses writes, which is open from here on
        with statements(pair) as (master, slave), use_master():
            insert(db)
            insert(db)
            for _ in range(3):
                with db.use_slave():
                    run(db, COUNT)
        assert slave == [questions.position]
        of_application = [sql for sql in master if sql != questions.written]
        assert of_application == ["INSERT INTO message (body) VALUES ('x')"] * 2 + [COUNT] * 3

    def test_m3_a_slave_known_to_have_caught_up_is_not_asked_again(
        self, db: Connection, pair: SessionPair, questions: Questions
    ) -> None:
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
        assert slave == [questions.position, COUNT, COUNT, COUNT]
        assert later == [COUNT] * 3

    def test_p4_a_slave_is_asked_again_after_known_for(
        self, make: Make, pair: SessionPair, questions: Questions
    ) -> None:
        db = make(known_for=0)
        with use_master():
            insert(db)
            pair.wait_caught_up()
            token = replswitch.carry()
        for _ in range(2):
            with statements(pair) as (_, slave), replswitch.resume(token), db.use_slave():
                run(db, COUNT)
            assert slave[-2:] == [questions.position, COUNT]

    def test_p2_a_new_link_is_asked_for_the_identity_of_its_server(
        self, db: Connection, pair: SessionPair, questions: Questions
    ) -> None:
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
        assert slave.count(questions.position) == 1
        assert slave.count(COUNT) == 2

    def test_a_slave_is_asked_its_position_before_a_transaction_begins(
        self, db: Connection, pair: SessionPair, questions: Questions
    ) -> None:
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
        assert slave[:3] == [questions.position, "BEGIN", COUNT]


class TestCommitsInAnswers:
    """P1: the answer to a write brings its position, without a round trip."""

    @pytest.mark.parametrize("kind", [Cursor, DictCursor, SSCursor, SSDictCursor])
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO message (body) VALUES ('x')",
            "DELETE FROM message",
            "ALTER TABLE message COMMENT 'x'",
            "CALL post()",
        ],
    )
    @told
    def test_p1_the_position_of_a_write_in_autocommit_costs_no_round_trip(
        self, db: Connection, pair: SessionPair, kind: Any, sql: str
    ) -> None:
        procedure(db, "post", "SELECT 1; INSERT INTO message (body) VALUES ('p');")
        insert(db)
        with use_master(), statements(pair) as (master, _), recorded_whole(pair):
            run(db, sql, kind)
        assert master == [sql]

    @pytest.mark.parametrize("kind", [Cursor, DictCursor, SSCursor, SSDictCursor])
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO message (body) VALUES ('x') RETURNING id",
            "INSERT INTO message (body) VALUES ('x'), ('y'), ('z') RETURNING id, body",
            "DELETE FROM message RETURNING id",
        ],
    )
    @returning
    def test_p1_a_write_that_returns_rows_is_recorded_without_a_round_trip(
        self, db: Connection, pair: SessionPair, kind: Any, sql: str
    ) -> None:
        insert(db)
        with use_master(), statements(pair) as (master, _), recorded_whole(pair):
            run(db, sql, kind)
        assert master == [sql]

    @pytest.mark.parametrize("served", ["mariadb-mysqlclient"], indirect=True)
    def test_m1_with_mysqlclient_a_write_that_returns_rows_is_recorded(self, db: Connection) -> None:
        with use_master():
            run(db, "INSERT INTO message (body) VALUES ('x') RETURNING id")
            assert '"p"' in replswitch.carry()

    @told
    def test_p1_the_position_of_a_commit_costs_no_round_trip(self, db: Connection, pair: SessionPair) -> None:
        self.commit_without_a_round_trip(db, pair, "INSERT INTO message (body) VALUES ('x')")

    @returning
    def test_p1_a_write_that_returns_rows_is_recorded_at_the_commit_without_a_round_trip(
        self, db: Connection, pair: SessionPair
    ) -> None:
        self.commit_without_a_round_trip(db, pair, "INSERT INTO message (body) VALUES ('x') RETURNING id")

    def commit_without_a_round_trip(self, db: Connection, pair: SessionPair, sql: str) -> None:
        insert(db)
        with use_master(), statements(pair) as (master, _), recorded_whole(pair):
            db.begin()
            run(db, sql)
            assert recorded() is None
            db.commit()
        assert len(master) == 3

    @returning
    @pytest.mark.parametrize("use_unicode", [True, False])
    @pytest.mark.parametrize("kind", [Cursor, SSCursor])
    def test_p1_a_row_that_begins_like_an_end_packet_is_read_as_a_row(
        self, make: Make, pair: SessionPair, kind: Any, use_unicode: bool
    ) -> None:
        """A length of eight bytes begins with 0xFE, as the packet after the last row does."""
        master = {**pair.master, "use_unicode": use_unicode, "max_allowed_packet": 2**26}
        with pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SELECT @@GLOBAL.max_allowed_packet")
            ((allowed,),) = cursor.fetchall()
            cursor.execute("SET GLOBAL max_allowed_packet = 67108864")
        try:
            with use_master(), make(master=master) as db:
                length = 2**24 + 5
                sql = f"INSERT INTO message (body) VALUES ('') RETURNING REPEAT('x', {length}), 'end'"
                with recorded_whole(pair):
                    ((body, end),) = run(db, sql, kind)
                assert (len(body), end) == (length, "end" if use_unicode else b"end")
                assert len(run(db, COUNT)) == 1  # the packets are where they should be
        finally:
            with pair.admin() as admin, admin.cursor() as cursor:
                cursor.execute(f"SET GLOBAL max_allowed_packet = {allowed}")

    @told
    def test_rows_and_further_results_are_read_as_with_the_bare_driver(self, db: Connection) -> None:
        procedure(db, "three", "SELECT 1 AS a; SELECT 2, 'b' FROM dual WHERE 0; SELECT 3;")
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

    @returning
    def test_p1_a_server_without_ok_packets_after_rows_is_asked_for_the_position(
        self, make: Make, pair: SessionPair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pymysql.constants import CLIENT  # noqa: PLC0415 - only here

        monkeypatch.setattr(CLIENT, "DEPRECATE_EOF", 0)  # as with a proxy that does not know it
        db = make()
        run(db, "SELECT 1")
        with use_master(), statements(pair) as (master, _), recorded_whole(pair):
            assert run(db, "INSERT INTO message (body) VALUES ('x'), ('y') RETURNING id") == ((1,), (2,))
            replswitch.carry()
            replswitch.carry()
        assert master[1:] == ["SELECT @@SESSION.last_gtid"]

    @told
    @pytest.mark.parametrize("kind", [Cursor, SSCursor])
    def test_m1_a_procedure_that_writes_and_then_fails_is_recorded(
        self, db: Connection, pair: SessionPair, kind: Any
    ) -> None:
        """An error has no session state, so the server is queried, and only then."""
        procedure(db, "fails", "INSERT INTO message (body) VALUES ('p'); SIGNAL SQLSTATE '45000';")
        pair.wait_caught_up()
        pair.stop_slave()
        with use_master(), recorded_whole(pair):
            with pytest.raises(db.OperationalError, match="1644"):
                run(db, "CALL fails()", kind)
            with db.use_slave():
                assert run(db, COUNT) == ((1,),)

    @returning  # a MySQL says what it has written itself, and not what a session has
    def test_m1_an_error_without_a_write_is_not_recorded(self, db: Connection) -> None:
        with use_master():
            insert(db)
        with use_master():
            with pytest.raises(db.ProgrammingError):
                run(db, "SELECT nothing FROM nowhere")
            assert replswitch.carry() == ""
            with db.use_slave():
                run(db, "SELECT 1")
        assert db.queries[-1]["db"] == SLAVE


@servers
class TestWithoutPositions:
    """P3: the clock, and one log line."""

    @pytest.fixture(autouse=True)
    def unlogged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clock, "_logged", set())

    @pytest.fixture
    def unlogged_db(self, make: Make, pair: SessionPair) -> Connection:
        privilege = "BINLOG ADMIN" if isinstance(pair, MariaDBPair) else "SESSION_VARIABLES_ADMIN"
        with pair.admin() as admin, admin.cursor() as cursor:
            cursor.execute(f"GRANT {privilege} ON *.* TO '{pair.master['user']}'@'%'")
        return make(master={**pair.master, "init_command": "SET SESSION sql_log_bin = 0"}, slaves=pair.slaves)

    def test_p3_without_a_binary_log_the_master_serves_the_rest_of_the_scope(self, unlogged_db: Connection) -> None:
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

    def test_p3_without_a_binary_log_one_log_line_gives_the_reason(
        self, unlogged_db: Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        with use_master():
            kept = unlogged_db.cursor()
            kept.execute("INSERT INTO message (body) VALUES ('x')")
            assert '"t"' in replswitch.carry()
        with use_master():  # by another link
            insert(unlogged_db)
            assert '"t"' in replswitch.carry()
        kept.close()
        (line,) = [record for record in caplog.records if record.name == "replswitch.positions"]
        assert line.levelno == logging.WARNING
        assert "The master reports no positions, because its binary log is off." in line.getMessage()
        assert "`cookie_max_age`" in line.getMessage()

    def test_a_slave_whose_answer_is_no_position_does_not_serve(
        self, db: Connection, pair: SessionPair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def nonsense(_: object) -> Any:
            raise PositionError("'x' is not a GTID of MariaDB")

        monkeypatch.setattr(db._driver, "fetch_position", nonsense)
        with use_master():
            insert(db)
            pair.wait_caught_up()
            with db.use_slave():
                assert run(db, COUNT) == ((1,),)
        assert (db.queries[-1]["db"], db.queries[-1]["reason"]) == (MASTER, "own-write")
        assert "cannot be read, so it is treated as a server that has not caught up: 'x' is not a GTID" in caplog.text
