"""RQ's jobs see what the code that enqueued them has written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from typing import Any

import pytest
from tests.test_jobs import board
from tests.test_jobs.conftest import Start, forget_writes, missing

from replswitch.decorators import use_master, use_slave
from replswitch.testing import MariaDBPair

try:
    import redis
    import rq
except ImportError:
    rq = None  # type: ignore[assignment]

WITHIN = 30


@pytest.fixture(scope="module")
def queue_of_module(start_worker: Start) -> Iterator[Any]:
    """A queue with a worker, which forks for each job."""
    if rq is None:
        missing("RQ is missing: pip install 'replswitch[rq]'")
    path = os.environ[board.REDIS]
    start_worker("rq.cli", "worker", "--url", f"unix://{path}", "--job-class", "replswitch.rq.Job")
    with redis.Redis(unix_socket_path=path) as connection:
        queue = import_module("replswitch.rq").Queue(connection=connection)
        result(queue.enqueue("tests.test_jobs.rq_jobs.seen", 0))
        yield queue


@pytest.fixture
def jobs() -> Any:
    """The functions of the jobs."""
    return import_module("tests.test_jobs.rq_jobs")


@pytest.fixture
def queue(queue_of_module: Any, mariadb_pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The queue; the slave is stopped, so only the master has what a test writes."""
    forget_writes(monkeypatch)
    mariadb_pair.stop_slave()
    return queue_of_module


def result(job: Any) -> Any:
    found = job.latest_result(timeout=WITHIN)
    assert found is not None, "the worker has not run the job"
    assert found.type is found.Type.SUCCESSFUL, found.exc_string
    return found.return_value


def write(pair: MariaDBPair, number: int) -> None:
    """Write as another process does, of which no token knows."""
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO message (id, body) VALUES (%s, 'hello')", (number,))


class TestAWorker:
    def test_m9_a_job_sees_what_its_caller_wrote_and_uses_the_slave_once_the_slave_has_it(
        self, queue: Any, jobs: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        with use_master():
            board.insert(jobs.db, number)
            assert result(queue.enqueue(jobs.seen, number)) == (1, "master", "marker")
            assert result(queue.enqueue(jobs.seen_in_a_coroutine, number)) == (1, "master", "marker")
            mariadb_pair.start_slave()
            mariadb_pair.wait_caught_up()
            assert result(queue.enqueue(jobs.seen, number)) == (1, "slave", "job")

    @pytest.mark.parametrize("by_name", [False, True], ids=["queue as an object", "queue by its name"])
    def test_m9_the_jobs_of_a_decorated_function_see_what_their_caller_wrote(
        self, queue: Any, jobs: Any, number: int, by_name: bool
    ) -> None:
        from rq.decorators import job  # noqa: PLC0415 - RQ may be missing

        given = {"queue": queue.name, "queue_class": type(queue)} if by_name else {"queue": queue}
        seen = job(**given, connection=queue.connection)(jobs.seen)
        with use_master():
            board.insert(jobs.db, number)
            assert result(seen.delay(number)) == (1, "master", "marker")

    def test_m9_the_master_serves_a_job_that_replswitch_has_not_enqueued_unless_the_job_has_an_option(
        self, queue: Any, jobs: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        plain = rq.Queue(queue.name, connection=queue.connection)
        write(mariadb_pair, number)
        assert result(plain.enqueue(jobs.seen, number)) == (1, "master", "job")
        assert result(plain.enqueue(jobs.seen, number, meta={"replswitch_option": "sticky"})) == (0, "slave", "job")

    def test_m9_a_job_without_earlier_writes_uses_the_slave_and_one_with_a_broken_token_the_master(
        self, queue: Any, jobs: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert result(queue.enqueue(jobs.seen, number)) == (0, "slave", "job")
        assert result(queue.enqueue(jobs.seen, number, meta={"replswitch": {"x"}})) == (1, "master", "job")

    def test_m9_a_job_sees_what_was_written_outside_any_request(self, queue: Any, jobs: Any, number: int) -> None:
        board.insert(jobs.db, number)
        assert result(queue.enqueue(jobs.seen, number)) == (1, "master", "marker")

    def test_m9_a_retried_job_sees_what_its_first_try_wrote(self, queue: Any, jobs: Any, number: int) -> None:
        job = queue.enqueue(jobs.insert_and_fail_once, number, retry=rq.Retry(max=1))
        assert queue.enqueue(jobs.seen, 0).latest_result(timeout=WITHIN)  # behind the second try
        assert result(job) == (1, "master", "marker")

    def test_m9_a_job_sees_what_the_jobs_that_it_depends_on_wrote(self, queue: Any, jobs: Any, number: int) -> None:
        before = [queue.enqueue(jobs.insert, each) for each in (number, number + 1)]
        found = queue.enqueue(jobs.seen, number, number + 1, depends_on=before)
        assert result(found) == (2, "master", "marker")

    def test_m9_a_job_sees_what_a_job_wrote_that_was_deleted_after_its_end(
        self, queue: Any, jobs: Any, number: int
    ) -> None:
        before = queue.enqueue(jobs.insert, number, result_ttl=0)
        assert result(queue.enqueue(jobs.seen, number, depends_on=before)) == (1, "master", "marker")

    def test_m9_jobs_with_the_same_meta_have_tokens_of_their_own(self, queue: Any, jobs: Any, number: int) -> None:
        meta = {"team": "board"}
        with use_master():
            board.insert(jobs.db, number)
            job = queue.enqueue(jobs.seen, number, meta=meta)
        assert meta == {"team": "board"}, "the token of one caller is in the dictionary that others enqueue with"
        assert result(job) == (1, "master", "marker")


class TestOptions:
    def test_m9_the_option_master_runs_a_job_on_the_master(
        self, queue: Any, jobs: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert result(queue.enqueue(jobs.seen_on_master, number)) == (1, "master", "job")
        found = queue.enqueue(jobs.seen, number, meta={"replswitch_option": "master"})
        assert result(found) == (1, "master", "job")

    def test_m9_the_option_wait_lets_a_job_wait_for_the_slave(
        self, queue: Any, jobs: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        mariadb_pair.start_slave()
        mariadb_pair.lag = 1
        with use_master():
            board.insert(jobs.db, number)
            assert result(queue.enqueue(jobs.seen_after_a_wait, number)) == (1, "slave", "job")


class TestWithoutAWorker:
    def test_m9_a_failed_job_ends_in_its_own_error_if_what_it_wrote_cannot_be_stored(
        self, queue: Any, jobs: Any, number: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        job = type(queue).job_class.create(jobs.insert_and_fail_once, (number,), connection=queue.connection)
        job.meta["cannot be pickled"] = lambda: None
        with pytest.raises(ValueError, match="the first try"):
            job.perform()
        assert f"RQ's job {job.id} has failed, and what it has written could not be stored." in caplog.text

    def test_m9_a_job_in_the_process_of_its_caller_and_the_caller_see_the_writes_of_each_other(
        self, queue: Any, jobs: Any, number: int
    ) -> None:
        at_once = type(queue)(connection=queue.connection, is_async=False)
        with use_slave():
            with use_master():
                board.insert(jobs.db, number)
            assert at_once.enqueue(jobs.seen, number).return_value() == (1, "master", "marker")
            at_once.enqueue(jobs.insert, number + 1)
            assert board.seen(jobs.db, number, number + 1) == (2, "master", "own-write")
