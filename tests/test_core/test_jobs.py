"""carry() and resume(): a job sees what the request that started it has written."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from replswitch import MASTER, SLAVE, Connection, PositionError, Switch, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.positions import SQLitePosition
from replswitch.request.marker import Marker, dump, load
from replswitch.scope import Scope
from replswitch.state import stack
from replswitch.testing import ReplicatedPair

Make = Callable[..., Connection]


def insert(db: Connection, number: int) -> None:
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO message (id, body) VALUES ({number}, 'hello')")


def count(db: Connection) -> int:
    with db.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM message")
        return int(cursor.fetchone()[0])


def last(db: Connection) -> tuple[str, str]:
    return db.queries[-1]["db"], db.queries[-1]["reason"]


def write_and_carry(db: Connection, number: int = 1) -> str:
    with use_master():
        insert(db, number)
        return carry()


class TestJobs:
    def test_a_slave_serves_a_job_once_it_has_the_carried_write(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        token = write_and_carry(db)
        with resume(token), db.use_slave():
            assert count(db) == 1
        assert last(db) == (MASTER, "marker")
        replicated_pair.start_slave()
        replicated_pair.wait_caught_up()
        with resume(token), db.use_slave():
            assert count(db) == 1
        assert last(db) == (SLAVE, "use_slave")

    def test_a_job_in_another_thread_sees_the_carried_write(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        token = write_and_carry(db)

        def job(token: str) -> int:
            with resume(token), use_slave():
                return count(db)

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(job, token).result() == 1
            assert pool.submit(job, "").result() == 0

    def test_a_job_in_an_asyncio_task_sees_the_carried_write(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        token = write_and_carry(db)

        async def job(token: str) -> int:
            with resume(token), use_slave():
                await asyncio.sleep(0)
                return count(db)

        async def both() -> list[int]:
            return list(await asyncio.gather(job(token), job("")))

        assert asyncio.run(both()) == [1, 0]

    def test_resume_does_not_change_the_state(self, db: Connection) -> None:
        with resume(write_and_carry(db)):
            assert db.state == MASTER
            with use_slave():
                assert db.state == SLAVE
        with use_slave(), resume(""):
            assert db.state == SLAVE

    def test_carry_in_a_job_returns_the_writes_of_the_token_and_of_the_job(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        one, two = make(name="one"), make(name="two")
        with resume(write_and_carry(one)):
            insert(two, 2)
            token = carry()
        replicated_pair.stop_slave()
        assert set(load(json.loads(token)).positions) == {"one", "two"}
        assert replicated_pair.driver in ("psycopg", "pymysql", "sqlite3")

    def test_a_carried_write_does_not_affect_a_database_of_another_name(
        self, make: Make, replicated_pair: ReplicatedPair
    ) -> None:
        one, two = make(name="one"), make(name="two")
        replicated_pair.stop_slave()
        with resume(write_and_carry(one)), use_slave():
            assert count(one) == 1
            assert count(two) == 0

    def test_a_job_inside_a_job_sees_only_its_own_token(self, db: Connection, replicated_pair: ReplicatedPair) -> None:
        replicated_pair.stop_slave()
        token = write_and_carry(db)
        with resume(token), use_slave():
            assert count(db) == 1
            with resume(""):
                assert count(db) == 0
            assert count(db) == 1

    def test_the_writes_of_a_job_count_for_the_scope_around_it(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        """As a queue does in eager mode: the request's visitor must see it."""
        replicated_pair.stop_slave()
        with use_slave():
            assert count(db) == 0
            with resume(""), use_master():
                insert(db, 1)
            assert count(db) == 1
            assert last(db) == (MASTER, "own-write")
            assert "p" in json.loads(carry())

    def test_the_writes_of_a_failing_job_count_for_the_scope_around_it(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        replicated_pair.stop_slave()
        with use_slave():
            with suppress(LookupError), resume(""), use_master():
                insert(db, 1)
                raise LookupError
            assert count(db) == 1


class TestTokens:
    def test_a_token_without_writes_is_empty(self, db: Connection) -> None:
        assert carry() == ""
        with use_slave():
            count(db)
            assert carry() == ""
        with resume(""):
            assert carry() == ""

    def test_a_token_is_a_short_ascii_text_without_secrets(
        self, db: Connection, replicated_pair: ReplicatedPair
    ) -> None:
        token = write_and_carry(db)
        assert token.isascii()
        assert len(token) < 200
        assert set(json.loads(token)) == {"at", "p"}

    @pytest.mark.parametrize(
        "token",
        ["x", "7", "[]", "null", '""', "{", '{"at": 1}', '{"at": 1, "p": {"shop": "mariadb:x"}}', "[" * 100_000,
         "9" * 10_000, '{"t": ' + "9" * 400 + "}", 7, b"\xff"],
    )  # fmt: skip
    def test_resume_refuses_what_is_not_a_token(self, token: str) -> None:
        with pytest.raises(PositionError, match=r"The token of a job does not come from carry\(\): "):  # noqa: SIM117
            with resume(token):
                pass
        assert stack() is None

    def test_a_token_with_positions_does_not_expire(self) -> None:
        marker = Marker(positions={"shop": SQLitePosition(1)}, placed_at=time.time() - 10**7)
        with resume(json.dumps(dump(marker))):
            assert carry() == json.dumps(dump(marker), separators=(",", ":"))

    @pytest.mark.parametrize(("age", "state"), [(5, MASTER), (15, SLAVE)])
    def test_a_token_without_a_position_expires_after_max_age(self, db: Connection, age: float, state: str) -> None:
        token = json.dumps(dump(Marker(time.time() - age)))
        with resume(token), use_slave():
            assert db.state == state
        with resume(token, max_age=60), use_slave():
            assert db.state == MASTER

    @pytest.mark.parametrize(("age", "state"), [(5, MASTER), (15, SLAVE)])
    def test_the_token_of_a_switch_without_a_database_holds_by_time(self, age: float, state: str) -> None:
        """Nothing can check where its database is."""
        token = json.dumps(dump(Marker(positions={"shop": SQLitePosition(1)}, placed_at=time.time() - age)))
        with resume(token), use_slave():
            assert Switch().state == state


class TestPendingWrites:
    """If a driver does not show a write, the server is queried in time, and once."""

    def test_carry_resolves_a_pending_write(self) -> None:
        with use_master():
            frame = stack()
            assert frame is not None
            scope = frame.scope
            scope.add_pending("link", lambda scope: scope.record("shop", SQLitePosition(7)))
            assert json.loads(carry())["p"] == {"shop": "sqlite:7"}
            assert not scope.pending

    def test_threads_that_need_a_pending_position_wait_for_its_answer(self) -> None:
        scope, asked, answer = Scope(), [], threading.Event()

        def ask(scope: Scope) -> None:
            asked.append(1)
            assert answer.wait(10)
            scope.record("shop", SQLitePosition(7))

        def settle_and_look() -> bool:
            scope.settle()
            return "shop" in scope.must_see

        scope.add_pending("link", ask)
        with ThreadPoolExecutor(2) as pool:
            results = [pool.submit(settle_and_look) for _ in range(2)]
            while not asked:
                time.sleep(0.001)
            time.sleep(0.01)  # for the one that does not ask
            answer.set()
            assert [result.result() for result in results] == [True, True]
        assert asked == [1]

    def test_a_write_during_the_position_query_is_queried_again(self) -> None:
        scope, asked = Scope(), []

        def ask(scope: Scope) -> None:
            asked.append("first")
            scope.add_pending("link", lambda _: asked.append("second"))

        scope.add_pending("link", ask)
        scope.settle()
        scope.settle()
        assert asked == ["first", "second"]
