"""Find the application code that runs a statement: the innermost frame outside replswitch and known libraries."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_OWN: Final = frozenset({"replswitch", "django_replswitch", "flask_replswitch"})

# An application may be an installed package, so libraries are recognized by name and not by folder.
_LIBRARIES: Final = (
    _OWN
    | sys.stdlib_module_names
    | frozenset(
        "MySQLdb aiomysql aiosqlite asyncmy asyncpg psycopg psycopg2 pymysql sqlalchemy flask_sqlalchemy"  # noqa: SIM905 - readable so
        " django rest_framework debug_toolbar flask werkzeug jinja2 starlette fastapi litestar quart"
        " asgiref anyio greenlet gevent eventlet celery kombu billiard rq"
        " gunicorn uvicorn hypercorn daphne waitress uwsgidecorators mod_wsgi"
        " wrapt opentelemetry sentry_sdk newrelic ddtrace _pytest pluggy".split()
    )
)


def application_place() -> str:
    """Return the place in the application that is running, as ``file:line in function``.

    The parents of a greenlet are searched as well, and so is the task that waits for a thread of asgiref. If no line of
    the application is found, return the nearest line of a library, with the name of the thread.
    """
    nearest = None
    for frame in _frames(sys._getframe(1)):
        name = _package(frame)
        place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        if name not in _LIBRARIES and not frame.f_code.co_filename.startswith("<"):
            return place
        nearest = nearest or (place if name not in _OWN else None)
    thread = threading.current_thread().name
    return f"{nearest or 'an unknown place'}, in the thread {thread!r} without application code"


def _package(frame: FrameType) -> str:
    """Return the name of a frame's top-level package; ``site`` for the script of a library's command."""
    name = frame.f_globals.get("__name__")
    if name == "__main__":
        if frame.f_code.co_filename.startswith(sysconfig.get_path("scripts")):
            return "site"
        name = frame.f_globals.get("__package__") or name  # python -m
    return str(name).partition(".")[0]


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and its callers, the innermost first."""
    for each in _outwards(frame):
        yield each
        if each.f_code.co_name == "thread_handler" and _package(each) == "asgiref":
            yield from _waiting_for(each.f_locals)
    greenlet: Any = sys.modules.get("greenlet")
    parent = None if greenlet is None else greenlet.getcurrent().parent
    while parent is not None:
        yield from _outwards(parent.gr_frame)
        parent = parent.parent


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _waiting_for(local: dict[str, Any]) -> Iterator[FrameType]:
    """Yield the frames of the task that waits for a thread: both have the same ``task_context``."""
    stacks = [list(_outwards(frame)) for frame in sys._current_frames().values()]  # the task may not be waiting yet
    for task in asyncio.all_tasks(local["loop"]):
        awaited: Any = task.get_coro()
        frames: list[FrameType] = []
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            frames.insert(0, frame)
            awaited = awaited.cr_await
        stacks.append(frames)
    for frames in stacks:
        callers = (frame.f_locals for frame in frames if frame.f_code.co_name == "__call__")
        if any(known.get("task_context") is local["task_context"] for known in callers):
            yield from frames
