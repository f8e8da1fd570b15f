"""Celery: a task sees what the code that called it has written.

::

    app = Celery("shop", broker=…)
    replswitch.celery.install(app)

This is the only module that imports Celery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from replswitch.checking import require_package
from replswitch.jobs import Jobs, job_option, option_of

require_package("celery", "5.4", "celery")

from celery import current_task, signals  # noqa: E402 - it fails with a clear error without Celery

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from celery import Celery

    from replswitch.jobs import JobOption

__all__ = ["install", "job_option"]

HEADER: Final = "replswitch"
"""The name of the message header that contains the token."""

_BLOCK: Final = "_replswitch_block"
"""The attribute of a running task's request that contains the block of `Jobs.running` in which the task runs."""

_installed: Final[WeakKeyDictionary[Celery, Jobs]] = WeakKeyDictionary()


def install(app: Celery, *, default: JobOption = "sticky", max_age: float = 10, position_max_age: float = 3600) -> None:
    """Make each task see what the code that called it has written.

    Call `install` in the module that makes the application, so that it runs in the processes that call tasks and in the
    workers. The option ``replswitch`` of a task is ``"master"``, ``"sticky"`` or ``{"wait": seconds}``, as in
    ``@app.task(replswitch="master")``. `job_option` says what these values mean.

    Args:
        app: the application.
        default: the option of tasks that do not set it.
        max_age: seconds after which a write without a position is ignored, like the option ``cookie_max_age`` of
            requests. Until then, the master serves the tasks that must see the write.
        position_max_age: seconds after which a write with a position is ignored, like the option ``position_max_age``
            of requests.

    Raises:
        ConfigurationError: a value is not accepted.
    """
    _installed[app] = Jobs(default, max_age=max_age, position_max_age=position_max_age)
    for signal, receiver in (
        (signals.before_task_publish, _publish),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
        (signals.beat_init, _begin_beat),
        (signals.beat_embedded_init, _begin_beat),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"replswitch{receiver.__name__}")


def _publish(headers: dict[str, Any] | None = None, body: Any = None, **_: object) -> None:
    """Put the token into the headers of a message."""
    jobs = next(iter(_installed.values()), None)
    if jobs is None or headers is None:
        return
    if token := jobs.token(joins=_is_joining(headers.get("id"))):
        headers[HEADER] = token
    else:
        headers.pop(HEADER, None)  # a retried task passes on its headers


def _is_joining(task_id: object) -> bool:
    """Return whether a message is the body of a chord, which the last task in the header of the chord starts."""
    request = current_task.request if current_task else None
    if request is None:
        return False
    body = request.chord or {}
    return bool(request.task == "celery.chord_unlock" or body.get("options", {}).get("task_id", "") == task_id)


def _begin(task: Any = None, **_: object) -> None:
    jobs = _installed.get(task.app)
    if jobs is None:
        return
    request = task.request
    # With task_always_eager there is no message.
    token = jobs.token() if request.is_eager else getattr(request, HEADER, None)
    block = jobs.running(token, options=(getattr(task, "replswitch", None), option_of(task.run)))
    block.__enter__()
    setattr(request, _BLOCK, block)


def _end(task: Any = None, **_: object) -> None:
    block: AbstractContextManager[None] | None = task.request.__dict__.pop(_BLOCK, None)
    if block is not None:
        block.__exit__(None, None, None)


def _begin_beat(sender: Any = None, **_: object) -> None:
    """Ignore the writes of a process that only starts scheduled tasks, such as the writes of its schedule."""
    for jobs in _installed.values():
        jobs.sees_outside = False
