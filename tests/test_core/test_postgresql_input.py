"""Settings and servers of PostgreSQL that are wrong, or of no use, through connect()."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tests.altered import remote_apply

from replswitch import MASTER, SLAVE, Connection, NoServerError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.positions import clock
from replswitch.report import servers_of, statuses
from replswitch.testing import PostgreSQLPair

if TYPE_CHECKING:
    from tests.test_core.conftest import Make

pytestmark = pytest.mark.parametrize("served", ["postgresql", "postgresql-psycopg2"], indirect=True)

COUNT = "SELECT COUNT(*) FROM message"


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def write(db: Connection, number: int) -> str:
    """Write a number on the master, and return the token of the scope."""
    with resume(""), use_master():
        run(db, f"INSERT INTO message VALUES ({number})")
        return carry()


def read(db: Connection, token: str) -> tuple[int, str]:
    """Return how many numbers a reader finds, and the side."""
    with resume(token), use_slave():
        return run(db, COUNT), db.queries[-1]["db"]


@pytest.fixture(autouse=True)
def _nothing_was_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_logged", set())


@pytest.fixture(scope="module")
def stranger() -> Iterator[PostgreSQLPair]:
    """Another master, with an empty table. Its log is ahead of the pair's."""
    with PostgreSQLPair() as other, closing(other.connect()) as connection:
        connection.execute("CREATE TABLE message (id INT)")
        for _ in range(40):
            connection.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 4000000))")
        yield other


def test_a_slave_that_is_not_in_recovery_serves_no_read_that_must_see_a_write(
    make: Make, stranger: PostgreSQLPair, caplog: pytest.LogCaptureFixture
) -> None:
    db = make(slaves=[{"port": stranger.master["port"], "password": stranger.password}])
    for number in (1, 2):
        assert read(db, write(db, number)) == (number, MASTER)
    (line,) = [record.getMessage() for record in caplog.records if "not in recovery" in record.getMessage()]
    assert f"127.0.0.1:{stranger.master['port']}" in line


def test_a_slave_that_is_the_master_itself_serves_what_it_has_written(
    make: Make, replicated_pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    db = make(slaves=[replicated_pair.master])
    assert read(db, write(db, 1)) == (1, SLAVE)
    assert "not in recovery" not in caplog.text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sslmode": "require"}, "SSL was required"),
        ({"sslmode": "wrong"}, 'invalid sslmode value: "wrong"'),
        ({"password": "wrong"}, "password authentication failed"),
        ({"dbname": "none"}, 'database "none" does not exist'),
    ],
)
def test_f4_a_slave_with_a_wrong_setting_leaves_rotation_with_one_log_line(
    make: Make, replicated_pair: Any, wrong: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    db = make(slaves=[{**replicated_pair.slaves[0], **wrong}])
    assert [read(db, "") for _ in range(3)] == [(0, MASTER)] * 3
    (line,) = [record.getMessage() for record in caplog.records if "out of rotation" in record.getMessage()]
    assert words in line
    assert "\n" not in line


def test_s8_the_warning_of_a_moved_write_is_one_line(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    db = make()
    with resume(""), use_slave():
        run(db, "INSERT INTO message VALUES (1)")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "read-only transaction. Before the write" in line
    assert "\n" not in line


@pytest.mark.parametrize("sslmode", ["require", "wrong"])
def test_a_wrong_sslmode_of_the_master_raises_the_error_of_the_driver(
    make: Make, replicated_pair: Any, sslmode: str
) -> None:
    db = make(master={**replicated_pair.master, "sslmode": sslmode}, slaves=replicated_pair.slaves)
    with use_master(), pytest.raises(db.OperationalError, match=r"SSL was required|invalid sslmode value"):
        run(db, COUNT)


def test_with_remote_apply_a_slave_serves_own_writes_at_once(make: Make, replicated_pair: Any) -> None:
    with remote_apply(replicated_pair):
        db = make()
        for number in range(1, 4):
            assert read(db, write(db, number)) == (number, SLAVE)
        master, slave = statuses(servers_of(db))
    assert "replswitch does not need" in str(master.note)
    assert (master.problem, slave.problem) == (None, None)


def test_f3_the_error_of_a_lost_master_is_one_line(make: Make, replicated_pair: Any) -> None:
    db = make(master={**replicated_pair.master, "port": 1}, slaves=replicated_pair.slaves)
    with use_master(), pytest.raises(NoServerError, match=r"refused.*\. Start it, or correct its settings\.") as raised:
        run(db, COUNT)
    assert "\n" not in str(raised.value)
