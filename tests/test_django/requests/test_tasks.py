"""Django's tasks see what the code that enqueued them has written."""

from __future__ import annotations

import json
import os
import pickle
from contextlib import closing
from importlib import import_module
from typing import Any

import django
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from tests.test_django.requests.board import Site, Visitor, answer, shown, through_wsgi, write

from django_replswitch.tasks import TaskBackend
from replswitch import ConfigurationError
from replswitch.decorators import use_master, use_slave
from replswitch.outside import Outside
from replswitch.request.marker import Marker


@pytest.fixture(scope="module")
def tasks() -> Any:
    """The module with the tasks."""
    if django.VERSION < (6, 0):
        try:
            import_module("django_tasks")
        except ImportError:
            if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
                pytest.fail("CI is set, so this must not be skipped: django-tasks is missing")
            pytest.skip("django-tasks is missing: pip install django-tasks")
    return import_module("tests.test_django.project.tasks")


@pytest.fixture
def stopped(site: Site, tasks: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks; the slave is stopped, so only the master has what a test writes. Both have one message."""
    Outside.wrote()  # so that nothing is left to merge
    monkeypatch.setattr(Outside, "merged", Marker())
    monkeypatch.setattr(Outside, "may_have_written_at", 0)
    tasks.QueueBackend.messages.clear()
    site.pair.stop_slave()
    return tasks


def test_m9_a_task_sees_what_its_caller_wrote_and_uses_the_slave_once_the_slave_has_it(
    stopped: Any, site: Site
) -> None:
    with use_master():
        with transaction.atomic():
            write(2)
            transaction.on_commit(lambda: stopped.seen.using(backend="queue").enqueue())
        for task in (stopped.seen_in_a_coroutine, stopped.seen):
            assert task.using(backend="queue").enqueue().kwargs == {}
    assert stopped.run_next() == [2, "master", "marker"]
    assert stopped.run_next() == [2, "master", "marker"]
    site.pair.start_slave()
    site.pair.wait_caught_up()
    assert stopped.run_next() == [2, "slave", "job"]


def test_m9_a_task_whose_caller_wrote_nothing_uses_a_slave(stopped: Any, site: Site) -> None:
    with closing(site.pair.connect()) as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO project_message (body) VALUES ('2')")
    stopped.seen.using(backend="queue").enqueue()
    stopped.seen_on_master.using(backend="queue").enqueue()
    assert stopped.run_next() == [1, "slave", "job"]
    assert stopped.run_next() == [2, "master", "job"]


def test_m9_a_task_sees_what_was_written_outside_any_request(stopped: Any) -> None:
    write(2)
    stopped.seen.using(backend="queue").enqueue()
    assert stopped.run_next() == [2, "master", "marker"]


def test_m9_an_immediate_task_sees_uncommitted_writes_and_its_caller_sees_the_writes_of_the_task(
    stopped: Any, site: Site
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            write(2)
            assert stopped.seen.enqueue().return_value == [2, "master", "transaction"]
        with use_slave():
            assert stopped.seen.enqueue().return_value == [2, "master", "marker"]
            stopped.insert.enqueue("3")
            return answer(shown())

    site.serve(root=view)
    visitor = Visitor(through_wsgi)
    assert visitor.post().text == "1 2 3"


def test_m9_a_task_that_is_called_directly_runs_in_the_state_of_its_caller(stopped: Any) -> None:
    write(2)
    assert stopped.count.call() == 2
    with use_master():
        assert stopped.seen.call() == [2, "master", "use_master"]
    with use_slave():
        assert stopped.seen.call() == [1, "slave", "use_slave"]


def test_m9_a_message_that_replswitch_has_not_sent_runs_on_the_master(stopped: Any, site: Site) -> None:
    with closing(site.pair.connect()) as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO project_message (body) VALUES ('2')")
    stopped.QueueBackend.messages.append(json.dumps([stopped.count.module_path, [], {}]))
    assert stopped.run_next() == 2


def test_the_results_of_the_dummy_task_backend_have_the_arguments_of_the_application_alone(stopped: Any) -> None:
    backend = stopped.TASKS.task_backends["dummy"]
    backend.clear()
    with use_master():
        write(2)
        stopped.insert.using(backend="dummy").enqueue("3")
    assert [(result.args, result.kwargs) for result in backend.results] == [(["3"], {})]


@pytest.mark.parametrize("results", [{}, None, ["id"]])
def test_a_task_backend_may_have_an_attribute_results_of_its_own(
    stopped: Any, monkeypatch: pytest.MonkeyPatch, results: Any
) -> None:
    monkeypatch.setattr(stopped.QueueBackend, "results", results, raising=False)
    assert stopped.count.using(backend="queue").enqueue().kwargs == {}


def test_m9_a_task_survives_pickling(stopped: Any) -> None:
    task = stopped.seen.using(backend="queue", priority=3)
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, ConfigurationError, 'The option "REPLSWITCH" is None'),
        ({"BACKEND": "nowhere.Backend"}, ImproperlyConfigured, "'nowhere.Backend' cannot be imported"),
        ({"BACKEND": "x", "DEFALT": 1}, ConfigurationError, 'Did you mean "DEFAULT"'),
    ],
)
def test_a_task_backend_with_wrong_options_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TaskBackend("default", {"REPLSWITCH": given})
