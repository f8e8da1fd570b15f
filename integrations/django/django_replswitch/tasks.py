"""Django's tasks: a task sees what the code that enqueued it has written.

::

    TASKS = {
        "default": {
            "BACKEND": "django_replswitch.tasks.TaskBackend",
            "REPLSWITCH": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
        },
    }

This module works with ``django.tasks`` (Django 6.0) and with the backport ``django_tasks``, and imports neither.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from functools import cache
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from replswitch.checking import refuse_unknown, require
from replswitch.jobs import Jobs, job_option, option_of

__all__ = ["TaskBackend", "job_option"]

TOKEN: Final = "replswitch_token"  # noqa: S105 - no secret
"""The keyword argument that contains the token of `Jobs`, even an empty one. The task's function does not get it."""

OPTIONS: Final = {"BACKEND": "", "DEFAULT": "default", "MAX_AGE": "max_age", "POSITION_MAX_AGE": "position_max_age"}
"""The options in ``REPLSWITCH``, each with the argument of `Jobs` that it sets; empty if it sets none."""


class _Task:
    """A mixin for the class of tasks, which runs the function of a task in a scope of its own."""

    __slots__ = ()

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the function of the task in a scope of its own."""
        with self._running(kwargs):
            return super().call(*args, **kwargs)  # type: ignore[misc]  # a task of Django has it

    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the asynchronous function of the task in a scope of its own."""
        with self._running(kwargs):
            return await super().acall(*args, **kwargs)  # type: ignore[misc]  # likewise

    def _running(self: Any, kwargs: dict[str, Any]) -> Any:
        token, jobs = kwargs.pop(TOKEN, None), getattr(self.get_backend(), "jobs", None)
        # Without a token, no worker calls the task: the application calls it directly, within its own state. A task may
        # also use a backend that is not wrapped: `task.using(backend=…)`.
        if token is None or jobs is None:
            return nullcontext()
        return jobs.running(token, options=(option_of(self.func),))

    def __reduce__(self: Any) -> tuple[Any, ...]:
        # The class of the task is made at run time, so pickle would not find it.
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "func"}
        return _restored, (self.module_path, values)


def _restored(path: str, values: dict[str, Any]) -> Any:
    task = import_string(path)
    return type(task)(func=task.func, **values)


class _Backend:
    """A mixin for the class of a backend, which adds the token to each task."""

    def __init__(self, alias: str, params: dict[str, Any], jobs: Jobs) -> None:
        super().__init__(alias, params)  # type: ignore[call-arg]  # a backend of Django has these
        self.jobs = jobs
        self.task_class: Any = _class_of_tasks(self.task_class)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Enqueue a task, with the token that says what the task must see."""
        result = super().enqueue(task, args, {**kwargs, TOKEN: self.jobs.token()})  # type: ignore[misc]  # likewise
        result.kwargs.pop(TOKEN, None)
        kept = getattr(self, "results", None)
        if isinstance(kept, list) and kept and isinstance(kept[-1], type(result)):
            kept[-1].kwargs.pop(TOKEN, None)  # Django's DummyBackend keeps copies for tests
        return result


class TaskBackend:
    """Wraps another backend of Django's tasks.

    The parameter ``REPLSWITCH`` names the other backend in ``BACKEND``. It may have ``DEFAULT``, the option of the
    tasks without a `job_option`, and ``MAX_AGE`` and ``POSITION_MAX_AGE``, the seconds after which writes without and
    with a position are ignored. All other parameters are those of the other backend.

    Raises:
        ConfigurationError: an option in ``REPLSWITCH`` is unknown, or its value is not accepted.
        ImproperlyConfigured: the other backend cannot be imported.
    """

    def __new__(cls, alias: str, params: dict[str, Any]) -> Any:
        """Return an instance of the other backend, in a subclass that adds the token and the scope to its tasks."""
        given = params.get("REPLSWITCH", {})
        wanted = 'a dictionary such as {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}'
        require(isinstance(given, dict) and isinstance(given.get("BACKEND"), str), "REPLSWITCH", given, wanted)
        refuse_unknown("option of REPLSWITCH", given, OPTIONS)
        try:
            wrapped = import_string(given["BACKEND"])
        except ImportError as error:
            raise ImproperlyConfigured(f"The task backend {given['BACKEND']!r} cannot be imported: {error}") from error
        jobs = Jobs(**{name: given[key] for key, name in OPTIONS.items() if name and key in given})
        others = {key: value for key, value in params.items() if key != "REPLSWITCH"}
        return _class_of_backends(wrapped)(alias, others, jobs)


@cache  # each thread has a backend of its own, and all use one class
def _class_of_tasks(base: type) -> Any:
    return type(base.__name__, (_Task, base), {"__slots__": ()})


@cache
def _class_of_backends(base: type) -> Any:
    return type(base.__name__, (_Backend, base), {})
