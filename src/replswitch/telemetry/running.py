"""The statement that is running, for tools that describe it in spans. It is recorded only while a tool watches."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.decision import Decision
    from replswitch.drivers import Driver
    from replswitch.telemetry.counters import Tally


Running: TypeAlias = "tuple[Tally, Driver]"
"""The counter of a statement, whose labels describe it; and the driver of its server."""

#: The statement of this thread or task; None while none is running, or while no tool watches.
running: Final[ContextVar[Running | None]] = ContextVar("replswitch.running", default=None)


class Watching:
    """Whether a tool watches, such as the instrumentation of OpenTelemetry. There is one object, `watching`.

    Attributes:
        on: True while a tool watches.
        request_begins: a function of the tool, which is called with the decision for each request.
    """

    def __init__(self) -> None:
        self.on = False
        self.request_begins: Callable[[Decision], object] = bool
        self._callbacks: list[Callable[[], object]] = []

    def start(self, request_begins: Callable[[Decision], object]) -> None:
        """Begin to watch."""
        self.request_begins, self.on = request_begins, True
        for callback in self._callbacks:
            callback()

    def stop(self) -> None:
        """Stop watching."""
        self.on, self.request_begins = False, bool

    def when_on(self, callback: Callable[[], object]) -> None:
        """Call a function each time that a tool begins to watch, and at once if a tool is watching already."""
        if callback not in self._callbacks:
            self._callbacks.append(callback)
        if self.on:
            callback()

    def around(self, run: Callable[..., Any], tally: Tally, driver: Driver) -> Callable[..., Any]:
        """Return a function that sets `running` while it calls ``run``. Call this method only while a tool watches."""
        return partial(_run, (tally, driver), run)


def _run(statement: Running, run: Callable[..., Any], *args: Any, **options: Any) -> Any:
    running.set(statement)
    try:
        return run(*args, **options)
    finally:
        running.set(None)


watching: Final = Watching()
