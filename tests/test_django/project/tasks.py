"""Tasks that read and write the board, and a queue for them."""

from __future__ import annotations

import json
import threading
from importlib import import_module
from typing import Any, ClassVar

import django
from django.db import connections
from django.utils.module_loading import import_string
from tests.test_django.project.models import Message

from django_replswitch.tasks import job_option
from replswitch.state import stack

TASKS: Any = import_module("django.tasks" if django.VERSION >= (6, 0) else "django_tasks")  # the latter is the backport
ImmediateBackend: Any = import_module(f"{TASKS.__name__}.backends.immediate").ImmediateBackend
task = TASKS.task


class QueueBackend(ImmediateBackend):  # type: ignore[misc]  # of one of two modules
    """Keeps tasks as a store or a broker does, until `run_next` runs one."""

    messages: ClassVar[list[str]] = []

    def _execute_task(self, task_result: Any) -> None:
        self.messages.append(json.dumps([task_result.task.module_path, task_result.args, task_result.kwargs]))


def run_next() -> Any:
    """Run the oldest task of the queue as a worker does, and return its result."""
    results: list[Any] = []

    def work() -> None:
        path, args, kwargs = json.loads(QueueBackend.messages.pop(0))
        try:
            results.append(import_string(path).using(backend="queue").call(*args, **kwargs))
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


def _seen(count: int) -> list[Any]:
    frame = stack()
    assert frame is not None
    decision = frame.scope.decisions[-1]
    return [count, decision.state, decision.reason]


@task  # type: ignore[untyped-decorator]  # likewise
def seen() -> list[Any]:
    """Count the messages."""
    return _seen(Message.objects.count())


@task  # type: ignore[untyped-decorator]  # likewise
async def seen_in_a_coroutine() -> list[Any]:
    """Count the messages."""
    return _seen(await Message.objects.acount())


@task  # type: ignore[untyped-decorator]  # likewise
@job_option("master")
def seen_on_master() -> list[Any]:
    """Count the messages."""
    return _seen(Message.objects.count())


@task  # type: ignore[untyped-decorator]  # likewise
def count() -> int:
    """Count the messages, also outside a job."""
    return Message.objects.count()


@task  # type: ignore[untyped-decorator]  # likewise
def insert(body: str) -> None:
    """Write a message."""
    Message.objects.create(body=body)
