"""The calls of a session: what the engine takes for an attempt of a statement is a whole call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.engine.attempt import Attempt

if TYPE_CHECKING:
    from sqlalchemy.engine import ExecutionContext


class Calls:
    """The calls of a session in which it runs statements. One that a statement has failed in runs again as a whole.

    Attributes:
        number: that of the latest one; 1 before the first.
        running: the number of the innermost one that is running; 0 outside any.
        attempts: what has become of it, by the session's route in each database; None while nothing has failed.
    """

    __slots__ = ("attempts", "number", "running")

    def __init__(self) -> None:
        self.number, self.running = 1, 0
        self.attempts: dict[object, Attempt] | None = None

    def attempt(self, route: object) -> Attempt | None:
        """Return what has become of the running call in one database; None while nothing has failed."""
        return None if self.attempts is None else self.attempts.get(route)

    def failed(self, route: object, context: ExecutionContext | None) -> Attempt:
        """Return the same for a call in which a statement has just failed.

        Args:
            route: the session's, in that database.
            context: the statement's.
        """
        if self.attempts is None:
            self.attempts = {}
        single = context is None or not context.executemany
        return self.attempts.setdefault(route, Attempt(single=single, began_at=self.running))
