"""Dramatiq's actors see what the code that sent their messages has written."""

from __future__ import annotations

import time
import warnings
from contextlib import closing
from importlib import import_module
from typing import Any

import pytest
from tests.test_jobs import board
from tests.test_jobs.conftest import Start, forget_writes, missing

from replswitch.decorators import use_master
from replswitch.jobs import Jobs
from replswitch.testing import MariaDBPair

try:
    import dramatiq
except ImportError:
    dramatiq = None  # type: ignore[assignment]

WITHIN = 30_000


@pytest.fixture(scope="module")
def actors_of_module(start_worker: Start) -> Any:
    """The actors, with a worker of two threads."""
    if dramatiq is None:
        missing("Dramatiq is missing: pip install 'replswitch[dramatiq]'")
    start_worker("dramatiq", "tests.test_jobs.dramatiq_actors", "--processes=1", "--threads=2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # Dramatiq 1 warns that it finds no client of memcached
        actors = import_module("tests.test_jobs.dramatiq_actors")
    result(actors.seen.send(0))
    return actors


@pytest.fixture
def actors(actors_of_module: Any, mariadb_pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The actors; the slave is stopped, so only the master has what a test writes."""
    forget_writes(monkeypatch)
    mariadb_pair.stop_slave()
    return actors_of_module


def result(message: Any) -> Any:
    return message.get_result(block=True, timeout=WITHIN)


def result_of_second_try(message: Any) -> Any:
    deadline = time.monotonic() + WITHIN / 1000
    while time.monotonic() < deadline:
        try:
            return result(message)
        except dramatiq.results.errors.ResultFailure:  # of the first try
            time.sleep(0.05)
    pytest.fail("there was no second try")


def write(pair: MariaDBPair, number: int) -> None:
    """Write as another process does, of which no token knows."""
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO message (id, body) VALUES (%s, 'hello')", (number,))


class TestAWorker:
    def test_m9_an_actor_sees_what_its_caller_wrote_and_uses_the_slave_once_the_slave_has_it(
        self, actors: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        with use_master():
            board.insert(actors.db, number)
            assert result(actors.seen.send(number)) == [1, "master", "marker"]
            assert result(actors.seen_in_a_coroutine.send(number)) == [1, "master", "marker"]
            mariadb_pair.start_slave()
            mariadb_pair.wait_caught_up()
            assert result(actors.seen.send(number)) == [1, "slave", "job"]

    def test_m9_an_actor_whose_caller_wrote_nothing_uses_a_slave(
        self, actors: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert result(actors.seen.send(number)) == [0, "slave", "job"]

    def test_m9_a_delayed_message_keeps_its_token(self, actors: Any, number: int) -> None:
        with use_master():
            board.insert(actors.db, number)
            message = actors.seen.send_with_options(args=(number,), delay=50)
        assert result(message) == [1, "master", "marker"]

    def test_m9_an_actor_sees_what_was_written_outside_any_request(self, actors: Any, number: int) -> None:
        board.insert(actors.db, number)
        assert result(actors.seen.send(number)) == [1, "master", "marker"]

    def test_m9_a_copy_of_a_message_sees_what_was_written_before_it_was_enqueued(
        self, actors: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        board.insert(actors.db, number)
        message = actors.seen.send(number)
        mariadb_pair.start_slave()
        mariadb_pair.wait_caught_up()
        mariadb_pair.stop_slave()
        board.insert(actors.db, number + 1)
        again = message.copy(message_id=f"{message.message_id}-2", args=(number + 1,))
        assert result(actors.seen.broker.enqueue(again)) == [1, "master", "marker"]

    def test_m9_a_retried_message_sees_what_its_first_try_wrote(self, actors: Any, number: int) -> None:
        assert result_of_second_try(actors.insert_and_fail_once.send(number)) == [1, "master", "marker"]

    def test_m9_each_actor_of_a_pipeline_sees_the_writes_of_those_before_it(self, actors: Any, number: int) -> None:
        steps = [
            actors.insert.message(number),
            actors.insert.message_with_options(args=(number + 1,), pipe_ignore=True),
        ]
        last = actors.seen.message_with_options(args=(number, number + 1), pipe_ignore=True)
        assert result(dramatiq.pipeline([*steps, last]).run()) == [2, "master", "marker"]

    def test_m9_the_callback_of_a_group_sees_the_writes_of_the_whole_group(self, actors: Any, number: int) -> None:
        numbers = range(number, number + 6)
        group = dramatiq.group([actors.insert.message(each) for each in numbers])
        group.add_completion_callback(actors.store_seen.message(f"seen-{number}", *numbers))
        group.run()
        deadline = time.monotonic() + WITHIN / 1000
        while (found := actors.broker.client.get(f"seen-{number}")) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found == b"(6, 'master', 'marker')"

    def test_m9_the_master_serves_a_message_that_a_broker_without_replswitch_has_sent(
        self, actors: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415 - Dramatiq may be missing

        write(mariadb_pair, number)
        with closing(RedisBroker(url=actors.ADDRESS)) as plain:
            plain.declare_queue("default")
            assert result(plain.enqueue(actors.seen.message(number))) == [1, "master", "job"]
            assert result(plain.enqueue(actors.seen.message(number), delay=50)) == [1, "master", "job"]

    def test_m9_the_master_serves_the_next_try_of_a_message_without_a_token(
        self, actors: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415 - Dramatiq may be missing

        write(mariadb_pair, number)
        with closing(RedisBroker(url=actors.ADDRESS)) as plain:
            plain.declare_queue("default")
            message = plain.enqueue(actors.seen_at_second_try.message(number))
        assert result_of_second_try(message) == [1, "master", "marker"]

    def test_m9_an_actor_with_a_broken_token_runs_on_the_master(
        self, actors: Any, monkeypatch: pytest.MonkeyPatch, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        monkeypatch.setattr(Jobs, "token", lambda *_, **__: "x")
        write(mariadb_pair, number)
        assert result(actors.seen.send(number)) == [1, "master", "job"]


class TestOptions:
    def test_m9_the_option_master_runs_an_actor_on_the_master(
        self, actors: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert result(actors.seen_on_master.send(number)) == [1, "master", "job"]
        message = actors.seen.send_with_options(args=(number,), replswitch="master")
        assert result(message) == [1, "master", "job"]

    def test_m9_the_option_wait_lets_an_actor_wait_for_the_slave(
        self, actors: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        mariadb_pair.start_slave()
        mariadb_pair.lag = 1
        with use_master():
            board.insert(actors.db, number)
            assert result(actors.seen_after_a_wait.send(number)) == [1, "slave", "job"]
