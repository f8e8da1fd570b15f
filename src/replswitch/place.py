"""Find the application code that runs a statement: the innermost frame outside replswitch and other libraries."""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
import threading
from contextlib import suppress
from inspect import isasyncgen
from typing import TYPE_CHECKING, Any, Final

from replswitch.installed import OWN, is_library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# The functions of asyncio that run a step of a task. With another event loop, only ``asyncio.runners.run`` is on the
# stack.
_EVENT_LOOP: Final = frozenset({("asyncio.events", "_run"), ("asyncio.runners", "run")})

# The beginnings of the names that Python and IPython give to code that is typed into them.
_TYPED: Final = ("<stdin>", "<console>", "<python-input-", "<ipython-input-")

# The types of the objects that a coroutine awaits while it waits for an asynchronous generator.
_STEPS: Final = frozenset({"async_generator_asend", "async_generator_athrow"})


def application_place() -> str:
    """Return the place in the application that is running, as ``file:line in function``.

    The search includes the parents of a greenlet, the task that waits for a thread of asgiref, and the task that waits
    for a task in which a library runs its own code. If no line of the application is found, return the nearest line of
    a library, with the name of the thread.
    """
    nearest = None
    for frame in _frames(sys._getframe(1)):
        name, file = _package(frame), frame.f_code.co_filename
        place = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        is_source = not file.startswith("<") or file.startswith(_TYPED)
        if is_source and not is_library(name, file):
            return place
        nearest = nearest or (place if name not in OWN else None)
    thread = threading.current_thread().name
    return f"{nearest or 'an unknown place'}, in the thread {thread!r}, which runs no application code"


def _package(frame: FrameType) -> str:
    """Return the name of a frame's top-level package; ``site`` for the script of a library's command."""
    name = frame.f_globals.get("__name__")
    if name == "__main__":
        if frame.f_code.co_filename.startswith(sysconfig.get_path("scripts")):
            return "site"
        name = frame.f_globals.get("__package__") or name  # python -m
    return str(name).partition(".")[0]


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and its callers, the innermost first. Tasks that wait for this task come before the event loop."""
    has_waiting = True
    for each in _stack(frame):
        if has_waiting and (each.f_globals.get("__name__"), each.f_code.co_name) in _EVENT_LOOP:
            has_waiting = False
            yield from _waiting_for_task()
        yield each
        if each.f_code.co_name == "thread_handler" and _package(each) == "asgiref":
            yield from _waiting_for_thread(each.f_locals)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    yield from _outwards(frame)
    greenlet: Any = sys.modules.get("greenlet")
    parent = None if greenlet is None else greenlet.getcurrent().parent
    while parent is not None:
        yield from _outwards(parent.gr_frame)
        parent = parent.parent


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _waiting_for_task() -> Iterator[FrameType]:
    """Yield the frames of the task that waits for the running task, then of the task that waits for it, and so on."""
    try:
        awaited: Any = asyncio.current_task()
    except RuntimeError:  # the loop has stopped
        return
    tasks = asyncio.all_tasks() if awaited is not None else set()
    while awaited is not None:
        tasks.discard(awaited)
        awaited_by = {getattr(task, "_fut_waiter", None): task for task in tasks}  # key None: waits for nothing
        waiting = [awaited_by.get(each) for each in (awaited, *_made_of(awaited)) if asyncio.isfuture(each)]
        awaited = next(filter(None, waiting), None)
        if awaited is not None:
            yield from reversed(_suspended(awaited.get_coro()))


def _made_of(task: Any) -> Iterator[Any]:
    """Yield what the callbacks of a task refer to, such as the future that shield() or gather() has made of it."""
    for callback, _ in getattr(task, "_callbacks", None) or ():
        for cell in getattr(callback, "__closure__", None) or ():
            with suppress(ValueError):  # the cell is empty
                yield cell.cell_contents


def _suspended(awaited: Any) -> list[FrameType]:
    """Return the frames of a coroutine or an asynchronous generator that waits, the outermost first."""
    frames: list[FrameType] = []
    while awaited is not None:
        if type(awaited).__name__ in _STEPS:
            awaited = next(filter(isasyncgen, gc.get_referents(awaited)), None)
        kind = "ag" if isasyncgen(awaited) else "cr"
        if (frame := getattr(awaited, f"{kind}_frame", None)) is None:
            break
        frames.append(frame)
        awaited = getattr(awaited, f"{kind}_await")
    return frames


def _waiting_for_thread(local: dict[str, Any]) -> Iterator[FrameType]:
    """Yield the frames of the task that waits for a thread. The thread and the task have the same ``task_context``."""
    stacks = [list(_outwards(frame)) for frame in sys._current_frames().values()]  # the task may not be waiting yet
    stacks += [_suspended(task.get_coro())[::-1] for task in asyncio.all_tasks(local["loop"])]
    for frames in stacks:
        callers = (frame.f_locals for frame in frames if frame.f_code.co_name == "__call__")
        if any(known.get("task_context") is local["task_context"] for known in callers):
            yield from frames
