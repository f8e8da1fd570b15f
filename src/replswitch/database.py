"""One database as a scope knows it: which side serves it and why, what it wrote, which writes were moved.

This is what every binding that runs statements shares; how links are opened and transactions begun is its own.
"""

from __future__ import annotations

import logging
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

from replswitch.drivers import Written
from replswitch.errors import NoServerError, PositionError, SlaveWriteError
from replswitch.events import count, tell
from replswitch.health import Health
from replswitch.lag import Lag, PositionClock
from replswitch.place import application_place
from replswitch.policy import Decision
from replswitch.positions.clock import fall_back_to_clock
from replswitch.progress import Progress
from replswitch.state import MASTER, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from replswitch.drivers import Driver, Raw
    from replswitch.health import Choosable
    from replswitch.options import DatabaseOptions
    from replswitch.positions import Position
    from replswitch.progress import LinkToSlave
    from replswitch.scope import Scope
    from replswitch.state import Frame, State, Switch

logger = logging.getLogger("replswitch.servers")

S = TypeVar("S", bound="Choosable")


# Few are different, and one is noted in each request.
_decision = lru_cache(maxsize=256)(Decision)


class Database:
    """One database.

    Args:
        switch: says which side the running code wants.
        name: what the database is called in markers. The same in every process of the application, whichever server is
            the master; databases that replicate by themselves should have different ones.
        key: what it is called in scopes; the switch itself by default.
        options: how it is served.
        has_slaves: whether there are any. Where the master stands in, it has reached every position (S10).
    """

    def __init__(
        self,
        switch: Switch,
        name: str,
        key: Hashable = None,
        *,
        options: DatabaseOptions,
        has_slaves: bool = True,
    ) -> None:
        self.switch = switch
        self.name = name
        self.key = switch if key is None else key
        self.options = options
        self.has_slaves = has_slaves
        self._progress = Progress()
        self._health = Health(options.downtime)
        self._lag = None if options.max_lag is None else Lag(options.max_lag)
        self._position_clock = PositionClock()
        self._far: frozenset[str] = frozenset()
        self._taken_over = False

    # Which side

    def side(self, *, in_master_transaction: bool) -> tuple[State, str | None]:
        """Choose the side of a statement (S4, S5, S8).

        Args:
            in_master_transaction: a transaction is open that the master has joined.

        Returns:
            the side, and the reason if it is another than the state's own.
        """
        if in_master_transaction:
            return MASTER, "transaction"
        frame = stack()
        why = None if frame is None else frame.scope.pinned(self.key)
        return (self.switch.state, None) if why is None else (MASTER, why)

    # Which slave

    def must_see(self, scope: Scope) -> Position | None:
        """Return how far a slave must have come to serve the scope; None where any may.

        What is in doubt is found out first.
        """
        scope.settle()
        return scope.must_see.get(self.name) if self.has_slaves else None

    def has_reached(self, link: LinkToSlave, position: Position, driver: Driver) -> bool:
        """Say whether a slave has what must be seen; asked where it is not known.

        Args:
            link: to the slave; in no transaction.
            position: what `must_see` returned.
            driver: asks.

        Raises:
            Exception: the driver's own error.
        """
        if not self._progress.has_reached(link, position):
            self._ask(link, driver)
        return self._progress.has_reached(link, position)

    def waits_for(self, scope: Scope, link: LinkToSlave, position: Position, driver: Driver) -> bool:
        """Wait for a slave that was behind, once a scope and no longer than the option ``wait``; say whether it came.

        The arguments are those of `has_reached`.
        """
        if not self.options.wait or scope.has_waited:
            return False
        scope.has_waited = True
        try:
            return driver.wait_for(link.raw, position, self.options.wait) and self.has_reached(link, position, driver)
        except driver.module.Error as error:
            logger.info("A slave that was waited for has failed: %s", error)
            return False

    def _ask(self, link: LinkToSlave, driver: Driver) -> None:
        try:
            self._progress.learn(link, *driver.standing(link.raw))
        except PositionError as error:
            logger.warning("A slave's position cannot be read, so the master serves: %s", error)

    def slaves_to_try(self, scope: Scope, slaves: Sequence[S], seconds_behind: Callable[[S], float]) -> Iterator[S]:
        """Yield the slaves in the order in which a read should try them: the scope's own first (S6).

        Those that have failed in the scope, or were too far behind for it, are left out; and those that rest because
        they have failed others (F2).

        Args:
            scope: the running one.
            slaves: all that there are, in the same tuple each time.
            seconds_behind: asks a slave, for the option ``max_lag``; it may run in another thread.
        """
        chosen = scope.slave(self.key)
        if chosen is not None:
            yield chosen
        for slave in self._health.candidates(slaves):
            if slave is chosen or scope.avoids(self.key, slave):
                continue
            if self._lag is None or self._is_near(slave, partial(seconds_behind, slave)):
                yield slave

    def _is_near(self, slave: Choosable, measure: Callable[[], float]) -> bool:
        assert self._lag is not None  # noqa: S101 - asked before; for the type checker
        is_near = self._lag.admits(slave.name, measure)
        if is_near == (slave.name in self._far):
            self._far ^= {slave.name}
            if is_near:
                tell("back", self.name, slave.name, "The slave %s is near enough again.", slave.name)
            else:
                text = "The slave %s is more than %g s behind, and gets no reads."
                tell("behind", self.name, slave.name, text, slave.name, self._lag.max_lag)
        return is_near

    def seconds_behind(self, written: Position | None, reached: Position | None) -> float:
        """Return how far behind a slave is by what the master has written and the slave has reached; 0 if untold."""
        if written is None or reached is None:
            return 0
        return self._position_clock.seconds_behind(written, reached)

    def lose_slave(self, scope: Scope, server: Choosable, error: BaseException) -> None:
        """Leave a slave alone that cannot be reached: this scope until it ends, others for `downtime` (F1)."""
        if self._health.failed(server):
            text = "The slave %s cannot be reached, and rests for %g s: %s"
            tell("rest", self.name, server.name, text, server.name, self.options.downtime, error)
        scope.avoid_slave(self.key, server)

    def found_slave(self, server: Choosable) -> None:
        """Take a slave back into use that has answered."""
        self._taken_over = False
        if self._health.answered(server):
            tell("back", self.name, server.name, "The slave %s is back.", server.name)

    def lose_master(self, server: str, error: BaseException) -> None:
        """Say that the master is gone, or has become read-only."""
        tell("master-lost", self.name, server, "The master %s does not serve: %s", server, error)

    def pass_over(self, scope: Scope, server: Hashable) -> None:
        """Leave a slave alone that is too far behind for this scope: what it must see only grows."""
        scope.avoid_slave(self.key, server)

    def lack_slaves(self, scope: Scope) -> str:
        """Let the master serve the reads of the scope, because no slave can, and return the reason.

        The reason is ``own-write`` or ``marker`` where there is something that a slave might lack.

        Raises:
            NoServerError: the master may not (the option ``fallback``).
        """
        why = "no-slave"
        if self.has_slaves and self.name in scope.must_see:
            why = "own-write" if scope.has_written(self.name) else "marker"
        elif self.options.fallback == "error":
            raise NoServerError(
                'No slave can serve the read, and the option "fallback" is "error", so the master does not. Slaves '
                "that have failed are tried again by themselves.",
                server=self.name,
            )
        else:
            count("takeover", self.name, "")
            if not self._taken_over:
                self._taken_over = True
                logger.warning("The master serves the reads of %s, because no slave can.", self.name)
        scope.pin(self.key, why)
        return scope.pins[self.key]

    # What was decided, and what was written

    def note(self, frame: Frame, state: State, server: str, why: str | None) -> str:
        """Write down in the scope which server was chosen, and return the reason for it."""
        reason = why or self._reason(frame)
        frame.scope.recorded = True
        frame.scope.note(_decision(state, reason, server))
        return reason

    def record_write(self, position: Position | None = None) -> None:
        """Record in the running scope that a write was committed on the master, or may have been (M1).

        Args:
            position: from which on a slave has it; None where nobody knows.
        """
        frame = stack()
        if frame is not None:
            frame.scope.record(self.key, self.name, position)

    def look_for_writes(self, link: Hashable, driver: Driver, raw: Raw) -> None:
        """Record what was committed through a link to the master since this was last asked.

        Where the driver does not tell, the server is asked before the scope reads from a slave, or answers.

        Args:
            link: to the master.
            driver: tells.
            raw: the link's connection.
        """
        written = driver.take_written(raw)
        if written is Written.NO:
            return
        frame = stack()
        if frame is None:
            return
        if written is not Written.ASK:
            self._record(frame.scope, written)
        elif frame.scope.answered:
            self._settle(frame.scope, driver, raw)  # nobody is going to ask in time
        else:
            scope = frame.scope
            scope.doubt(link, lambda: self._settle(scope, driver, raw))

    def _settle(self, scope: Scope, driver: Driver, raw: Raw) -> None:
        written: Position | Written = Written.YES
        try:
            written = driver.ask_written(raw)
        except driver.module.Error as error:
            logger.info("The master did not say what was written: %s", error)
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
        self._record(scope, written)

    def _record(self, scope: Scope, written: Position | Written) -> None:
        if written is not Written.NO:
            scope.record(self.key, self.name, None if isinstance(written, Written) else written)

    def move_write(
        self, error: BaseException, server: str, *, scope_has_read: bool, transaction_has_read: bool
    ) -> None:
        """Let the master serve the database from now on, because a slave refused a write (S8).

        Args:
            error: what the slave said.
            server: the slave.
            scope_has_read: the scope has read from a slave before.
            transaction_has_read: the open transaction has.

        Raises:
            SlaveWriteError: it may not be moved.
        """
        place = application_place()
        if self.options.on_slave_write == "error":
            self.refuse(error, server, 'on_slave_write is "error"')
        if transaction_has_read:
            self.refuse(error, server, "its transaction has read from the slave, and what it read may be stale")
        frame = stack()
        if frame is not None:
            frame.scope.pin(self.key, "moved-write")
        tell(
            "moved-write",
            self.name,
            server,
            "A write in slave state was moved to the master, at %s. The slave %s had refused it: %s. Before it, this "
            "scope had %s from a slave. Say use_master() there.",
            place,
            server,
            error,
            "read" if scope_has_read else "not read",
        )

    def refuse(self, error: BaseException, server: str, why: str) -> NoReturn:
        """Raise SlaveWriteError for a write that a slave refused."""
        place = application_place()
        raise SlaveWriteError(
            f"A write in slave state, at {place}, was refused by the slave {server} ({error}) and not moved to the "
            f"master: {why}. Say use_master() before the first statement that belongs to the write.",
            server=server,
            place=place,
        ) from error

    def _reason(self, frame: Frame) -> str:
        # Which instruction decided: the request's own, or a use_*() in it.
        decision = frame.scope.decision
        if decision is not None and decision.final:
            return decision.reason
        deciding = self.switch.deciding_frame()
        if deciding is None:
            return "default"
        decision = deciding.scope.decision
        if decision is not None and deciding.switch is None and deciding.begins_scope:
            return decision.reason
        return f"use_{deciding.state}"
