"""The tries of one statement, and what is known after each failure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from replswitch.engine.failure import LOST, UNSENT, OnMaster, Role

if TYPE_CHECKING:
    from replswitch.drivers import Fault
    from replswitch.engine.failure import Situation
    from replswitch.engine.servers import Server


class Attempt:
    """The tries of one statement so far.

    Args:
        single: True for one statement. False for ``executemany``, where some statements may have run before the
            failure.
        repeatable: the binding can run the statement again. False on a connection that the application has chosen.

    Attributes:
        on_master: the result of the try on the master.
        error: the error with which the master was lost, so that the statement continues without the master; else None.
        began_at: the number of the session's call that runs the statement (SQLAlchemy); 0 with other bindings.
    """

    def __init__(self, *, single: bool = True, repeatable: bool = True, began_at: int = 0) -> None:
        self._single = single and repeatable
        self.repeatable = repeatable
        self._failures: Counter[Role] = Counter()
        self._lost: Counter[Server] = Counter()
        self.on_master = OnMaster.UNTRIED
        self.error: BaseException | None = None
        self.began_at = began_at

    def count(self, role: Role, server: Server, fault: Fault) -> None:
        """Count a failure on a link with this role. If the connection to a slave was lost, count this, too."""
        self._failures[role] += 1
        if role is Role.SLAVE:
            self._lost[server] += fault in LOST

    def lose_master(self, situation: Situation, error: BaseException) -> None:
        """Record that the master was lost during the statement, so that another server is tried instead."""
        if self.error is None:
            not_run = (
                situation.role is Role.MASTER_READ_ONLY
                or situation.on_master is OnMaster.NOT_RUN
                or (self._single and situation.fault in UNSENT)
            )
            self.on_master = OnMaster.NOT_RUN if not_run else OnMaster.MAY_HAVE_RUN
            self.error = error.with_traceback(None)  # else a reference cycle would keep links open

    @property
    def is_first(self) -> bool:
        """Whether the statement is a single one, and has failed on the master exactly once."""
        return self._single and self._failures[Role.MASTER] == 1

    def lost_again(self, server: Server) -> bool:
        """Return whether the connection to a server was lost more than once during this statement."""
        return self._lost[server] > 1

    def is_exhausted(self, role: Role, slaves: int) -> bool:
        """Return True if no further server may be tried, because the statement itself seems to cause the failures.

        Args:
            role: the role of the link on which the statement has just failed.
            slaves: the number of slaves.
        """
        lost_twice = sum(times > 1 for times in self._lost.values())
        if role is Role.MASTER:
            return lost_twice > 0
        # The statement may fail twice on each slave, and twice on the server that the master's name points to.
        return not self.repeatable or lost_twice > 2 or self._failures[Role.SLAVE] > 2 * (slaves + 1)
