"""Celery's tasks see what their callers have written, in a prefork worker and in eager mode."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from typing import Any

import pytest
from tests.eventually import eventually
from tests.test_jobs import board
from tests.test_jobs.conftest import Start, forget_writes, missing

from replswitch import ConfigurationError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.jobs import Jobs
from replswitch.request.marker import Marker, dump
from replswitch.testing import MariaDBPair

try:
    import celery
    from celery import chain, chord, group, signals
except ImportError:
    celery = None

WITHIN = 30


@pytest.fixture(scope="module")
def tasks_of_module(start_worker: Start) -> Iterator[Any]:
    """The tasks, with a worker of two processes."""
    if celery is None:
        missing("Celery is missing: pip install 'replswitch[celery]'")
    told = start_worker(
        "celery", "-A", "tests.test_jobs.celery_app", "worker", "--pool=prefork", "--concurrency=2",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    tasks = import_module("tests.test_jobs.celery_app")
    try:
        tasks.seen.delay(0).get(timeout=60)
    except celery.exceptions.TimeoutError:
        pytest.fail(f"The worker has not answered within 60 seconds.\n{told()}")
    yield tasks
    gc.collect()  # results ask Redis when they are deleted


@pytest.fixture
def tasks(tasks_of_module: Any, mariadb_pair: MariaDBPair, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks; the slave is stopped, so only the master has what a test writes."""
    forget_writes(monkeypatch)
    mariadb_pair.stop_slave()
    return tasks_of_module


@pytest.fixture
def eager(tasks: Any) -> Iterator[Any]:
    """The tasks in eager mode."""
    tasks.app.conf.task_always_eager = True
    yield tasks
    tasks.app.conf.task_always_eager = False


def result_of(app: Any, task_id: str) -> Any:
    """Return the result of a task that another task has called.

    Celery 5.4 can miss the message that announces the result, if it comes while this process subscribes to it.
    """
    result = app.AsyncResult(task_id)
    eventually(result.ready, every=0.05)
    return result.get(timeout=WITHIN)


def call_without_replswitch(task: Any, number: int) -> str:
    """Call a task from a program that does not use replswitch, and return the text of the result."""
    script = (
        "import sys, celery; app = celery.Celery(broker=sys.argv[1], backend=sys.argv[1])\n"
        "print(app.send_task(sys.argv[2], [int(sys.argv[3])]).get(timeout=30))"
    )
    command = [sys.executable, "-c", script, task.app.conf.broker_url, task.name, str(number)]
    return subprocess.check_output(command, text=True).strip()


def write(pair: MariaDBPair, number: int) -> None:
    """Write as another process does, of which no token knows."""
    with closing(pair.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO message (id, body) VALUES (%s, 'hello')", (number,))


class TestAWorker:
    def test_m9_a_task_sees_what_its_caller_wrote_and_uses_the_slave_once_the_slave_has_it(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        with use_master():
            board.insert(tasks.db, number)
            assert tasks.seen.delay(number).get(timeout=WITHIN) == [1, "master", "marker"]
            mariadb_pair.start_slave()
            mariadb_pair.wait_caught_up()
            assert tasks.seen.delay(number).get(timeout=WITHIN) == [1, "slave", "job"]

    def test_m9_a_task_whose_caller_wrote_nothing_uses_a_slave(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        with use_master():
            assert tasks.seen.delay(number).get(timeout=WITHIN) == [0, "slave", "job"]

    def test_m9_a_task_sees_what_was_written_outside_any_request(self, tasks: Any, number: int) -> None:
        board.insert(tasks.db, number)
        assert tasks.seen.apply_async([number]).get(timeout=WITHIN) == [1, "master", "marker"]

    def test_m9_a_task_sent_by_celery_beat_has_no_token_with_earlier_writes(
        self, tasks: Any, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        (jobs,) = (jobs for app, jobs in replswitch_celery()._installed.items() if app is tasks.app)
        monkeypatch.setattr(jobs, "sees_outside", True)
        signals.beat_init.send(sender=None)
        board.insert(tasks.db, number)
        assert tasks.seen.delay(number).get(timeout=WITHIN) == [0, "slave", "job"]

    def test_m9_a_task_called_by_a_task_sees_the_writes_of_that_task_and_of_its_caller(
        self, tasks: Any, number: int
    ) -> None:
        with use_master():
            called = tasks.insert_and_call.delay(number).get(timeout=WITHIN)
            assert result_of(tasks.app, called) == [1, "master", "marker"]

    def test_m9_a_retried_task_sees_what_its_first_try_wrote(self, tasks: Any, number: int) -> None:
        assert tasks.insert_and_try_again.delay(number).get(timeout=WITHIN) == [1, "master", "marker"]

    def test_m9_each_task_of_a_chain_sees_the_writes_of_those_before_it(self, tasks: Any, number: int) -> None:
        steps = chain(tasks.insert.si(number), tasks.insert.si(number + 1), tasks.seen.si(number, number + 1))
        assert steps.delay().get(timeout=WITHIN) == [2, "master", "marker"]

    def test_m9_the_tasks_of_a_group_see_what_their_caller_wrote(self, tasks: Any, number: int) -> None:
        with use_master():
            board.insert(tasks.db, number)
            found = group(tasks.seen.si(number), tasks.seen.si(number)).delay()
        assert found.get(timeout=WITHIN) == [[1, "master", "marker"]] * 2

    def test_m9_the_body_of_a_chord_sees_the_writes_of_its_whole_header(self, tasks: Any, number: int) -> None:
        numbers = range(number, number + 6)
        found = chord([tasks.insert.si(each) for each in numbers], tasks.seen.si(*numbers)).delay()
        assert found.get(timeout=WITHIN) == [6, "master", "marker"]

    def test_m9_a_linked_task_sees_what_the_task_before_it_wrote(self, tasks: Any, number: int) -> None:
        linked = tasks.seen.si(number).set(task_id=f"linked-{number}")
        tasks.insert.apply_async([number], link=linked)
        assert result_of(tasks.app, f"linked-{number}") == [1, "master", "marker"]

    def test_m9_a_delayed_task_ignores_a_token_that_has_expired(
        self, tasks: Any, monkeypatch: pytest.MonkeyPatch, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        ages = iter([0, 9.8])
        monkeypatch.setattr(Jobs, "token", lambda self, joins=False: json.dumps(dump(Marker(time.time() - next(ages)))))
        write(mariadb_pair, number)
        assert tasks.seen.delay(number).get(timeout=WITHIN) == [1, "master", "marker"]
        assert tasks.seen.apply_async([number], countdown=0.5).get(timeout=WITHIN) == [0, "slave", "job"]

    def test_m9_the_master_serves_a_task_that_a_program_without_replswitch_has_called(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert call_without_replswitch(tasks.seen, number) == "[1, 'master', 'job']"

    def test_m9_the_master_serves_the_next_try_of_a_task_without_a_token(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert call_without_replswitch(tasks.seen_at_second_try, number) == "[1, 'master', 'marker']"

    @pytest.mark.parametrize("token", ["x", {"at": 1}])
    def test_m9_a_task_with_a_broken_token_runs_on_the_master(
        self, tasks: Any, monkeypatch: pytest.MonkeyPatch, mariadb_pair: MariaDBPair, number: int, token: object
    ) -> None:
        monkeypatch.setattr(Jobs, "token", lambda self, joins=False: token)
        write(mariadb_pair, number)
        assert tasks.seen.delay(number).get(timeout=WITHIN) == [1, "master", "job"]


class TestOptions:
    def test_m9_the_option_master_runs_a_task_on_the_master(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert tasks.seen_on_master.delay(number).get(timeout=WITHIN) == [1, "master", "job"]

    def test_m9_a_task_with_a_wrong_option_runs_on_the_master(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert tasks.seen_with_a_wrong_option.delay(number).get(timeout=WITHIN) == [1, "master", "job"]

    def test_m9_the_option_wait_lets_a_task_wait_for_the_slave(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        mariadb_pair.start_slave()
        mariadb_pair.lag = 60
        with use_master():
            board.insert(tasks.db, number)
            waited = tasks.seen_after_a_wait.delay(number)
            assert tasks.seen.delay(number).get(timeout=WITHIN) == [1, "master", "marker"]
            mariadb_pair.lag = 0
            assert waited.get(timeout=WITHIN) == [1, "slave", "job"]

    def test_m9_a_transaction_of_a_task_runs_on_the_master_and_reads_no_stale_row(
        self, tasks: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        found = tasks.seen_in_a_transaction.delay(number).get(timeout=WITHIN)
        assert found == [[1, "master", "transaction"], [1, "master", "own-write"]]


class TestEagerMode:
    def test_m9_an_eager_task_and_its_caller_see_the_writes_of_each_other(self, eager: Any, number: int) -> None:
        with use_slave():
            with use_master():
                board.insert(eager.db, number)
            assert eager.seen.delay(number).get() == (1, "master", "marker")
            eager.insert.delay(number + 1)
            assert board.seen(eager.db, number, number + 1) == (2, "master", "own-write")
            assert json.loads(carry())["p"]

    def test_m9_an_eager_task_sees_uncommitted_writes_of_its_caller(self, eager: Any, number: int) -> None:
        with use_slave():
            eager.db.begin()
            with use_master():
                board.insert(eager.db, number)
            assert eager.seen.delay(number).get() == (1, "master", "transaction")
            eager.db.rollback()

    def test_m9_an_eager_task_begins_in_the_state_of_a_job_whatever_the_state_of_its_caller(
        self, eager: Any, mariadb_pair: MariaDBPair, number: int
    ) -> None:
        write(mariadb_pair, number)
        assert eager.seen.delay(number).get() == (0, "slave", "job")
        assert eager.seen_on_master.delay(number).get() == (1, "master", "job")
        assert eager.insert_and_try_again.delay(number + 1).get() == (1, "master", "marker")
        with resume(""), use_slave():
            assert board.seen(eager.db, number) == (0, "slave", "use_slave")

    def test_m9_a_write_of_an_eager_task_logs_no_warning(
        self, eager: Any, number: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        eager.insert.delay(number)
        assert not caplog.records


def replswitch_celery() -> Any:
    return import_module("replswitch.celery")


@pytest.fixture
def module() -> Any:
    """The module of replswitch for Celery."""
    if celery is None:
        missing("Celery is missing: pip install 'replswitch[celery]'")
    return import_module("replswitch.celery")


class TestInstall:
    def test_install_accepts_the_current_app_of_celery(self, module: Any) -> None:
        before = celery.current_app._get_current_object()
        app = celery.Celery("current", set_as_current=True)
        try:
            module.install(celery.current_app)
            assert app in module._installed
        finally:
            module._installed.pop(app, None)
            before.set_current()

    def test_install_refuses_what_is_no_celery_application(self, module: Any) -> None:
        with pytest.raises(ConfigurationError, match=r'"app" is .*an instance of celery\.Celery'):
            module.install("shop")
