"""The slaves of one database: which of them serves a read, and what becomes of a read that one has failed.

Shared by all bindings, and by the threads of a process. How a link is opened is the binding's own (`Reach`).
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from replswitch.errors import NoServerError, PositionError
from replswitch.events import count, tell
from replswitch.health import Choosable, Health
from replswitch.lag import Lag, PositionClock
from replswitch.progress import LinkToSlave, Progress

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from replswitch.drivers import Driver, Raw
    from replswitch.options import DatabaseOptions
    from replswitch.positions import Position
    from replswitch.scope import Scope

logger = logging.getLogger("replswitch.servers")

S = TypeVar("S", bound=Choosable)
L = TypeVar("L", bound=LinkToSlave)
S_contra = TypeVar("S_contra", bound=Choosable, contravariant=True)
L_co = TypeVar("L_co", bound=LinkToSlave, covariant=True)


class Reach(Protocol[S_contra, L_co]):
    """How one thread or task of a binding reaches the slaves."""

    @property
    def driver(self) -> Driver:
        """The driver of all servers."""

    def link_to(self, server: S_contra) -> L_co:
        """Return a link to a slave: the one that is held already, or a new one; in no transaction.

        Raises:
            Exception: the driver's own error.
        """

    def drop(self, server: S_contra) -> None:
        """Close the links to a slave that is gone, but for those that others are using: each would take a time-out."""

    def borrowed(self, server: S_contra | None) -> AbstractContextManager[Raw]:
        """Lend a connection for questions, in whichever thread; None: to the master.

        Raises:
            Exception: the driver's own error.
        """


class Slaves:
    """The slaves of one database.

    Args:
        name: what the database is called in markers.
        key: what it is called in scopes.
        options: how it is served.
        exist: whether there are any. Where the master stands in, it has reached every position (S10).
    """

    def __init__(self, name: str, key: Hashable, options: DatabaseOptions, *, exist: bool) -> None:
        self._name = name
        self._key = key
        self._options = options
        self._exist = exist
        self._progress = Progress()
        self._health = Health(options.downtime)
        self._lag = None if options.max_lag is None else Lag(options.max_lag)
        self._position_clock = PositionClock()
        self._far: frozenset[Choosable] = frozenset()
        self._lost_at: dict[Choosable, float] = {}
        self._taken_over = False

    # Choosing

    def must_see(self, scope: Scope) -> Position | None:
        """Return how far a slave must have come to serve the scope; None where any may.

        What is in doubt is found out first.
        """
        scope.settle()
        return scope.must_see.get(self._name) if self._exist else None

    def choose(
        self,
        scope: Scope,
        servers: Sequence[S],
        must_see: Position | None,
        reach: Reach[S, L],
        *,
        is_last_resort: bool = False,
    ) -> L | None:
        """Return a link to the slave that serves the reads of the scope from now on; None where none can.

        The scope's own comes first (S6); those that have failed are left alone (F1, F2), and those that are further
        behind than `max_lag`. One that lacks what must be seen makes room for another one, and is waited for last
        (the option ``wait``, once a scope).

        Args:
            scope: the running one.
            servers: all slaves that there are, in the same tuple each time.
            must_see: what `must_see` returned.
            reach: opens links.
            is_last_resort: the master is gone, too: also those are tried that rest, have failed, or are far behind.

        Raises:
            Exception: the driver's own error, where it does not mean that a slave is gone.
        """
        behind: L | None = None
        for server in self._to_try(scope, servers, reach, is_last_resort=is_last_resort):
            link = self._link_to(server, scope, reach)
            if link is None:
                continue
            if must_see is None or not self._is_behind(scope, link, must_see, reach):
                if is_last_resort or scope.choose_slave(self._key, server) is server:
                    return link
                # Another thread of the scope was faster.
                return self.choose(scope, servers, must_see, reach, is_last_resort=is_last_resort)
            behind = behind or link
        if must_see is None or behind is None or not self._comes(scope, behind, must_see, reach.driver):
            return None
        scope.choose_slave(self._key, behind.server)
        return behind

    def _to_try(self, scope: Scope, servers: Sequence[S], reach: Reach[S, L], *, is_last_resort: bool) -> Iterable[S]:
        chosen = scope.slave(self._key)
        if is_last_resort:
            return sorted(servers, key=lambda slave: slave is not chosen)
        if chosen is None and self._lag is None and not scope.avoids_any:
            return self._health.candidates(servers)  # mostly
        return self._admitted(chosen, scope, servers, reach)

    def _admitted(self, chosen: S | None, scope: Scope, servers: Sequence[S], reach: Reach[S, L]) -> Iterator[S]:
        if chosen is not None:
            yield chosen
        for slave in self._health.candidates(servers):
            if slave is chosen or scope.avoids(self._key, slave):
                continue
            if self._lag is None or self._is_near(slave, reach):
                yield slave

    def _link_to(self, server: S, scope: Scope, reach: Reach[S, L]) -> L | None:
        driver, lost_at = reach.driver, self._lost_at.get(server)
        try:
            link = reach.link_to(server)
            if lost_at is not None and link.opened_at < lost_at:  # it leads to where nobody answered, and says nothing
                reach.drop(server)
                link = reach.link_to(server)
        except driver.module.Error as error:
            if not driver.unreachable(error):
                raise
            self._lose(scope, server, error, reach)
            return None
        self._taken_over = False
        self._tell_if_back(server)
        return link

    def _tell_if_back(self, server: Choosable) -> None:
        if self._health.answered(server):
            tell("back", self._name, server.name, "The slave %s is back.", server.name)

    def _is_behind(self, scope: Scope, link: L, must_see: Position, reach: Reach[S, L]) -> bool:
        """Say whether a slave lacks what the scope must see, or died when it was asked."""
        try:
            if self._has_reached(link, must_see, reach.driver):
                return False
        except reach.driver.module.Error as error:
            if not reach.driver.unreachable(error):
                raise
            self._lose(scope, link.server, error, reach)
        else:
            scope.avoid_slave(self._key, link.server)  # what the scope must see only grows
        return True

    def _has_reached(self, link: L, position: Position, driver: Driver) -> bool:
        """Say whether a slave has what must be seen; it is asked where that is not known (P2)."""
        if not self._progress.has_reached(link, position):
            try:
                self._progress.learn(link, *driver.standing(link.raw))
            except PositionError as error:
                logger.warning("A slave's position cannot be read, so the master serves: %s", error)
        return self._progress.has_reached(link, position)

    def on_master(self, scope: Scope, reader: S, reach: Reach[S, L]) -> L:
        """Return a link to the master that refuses writes, for reads that no slave can serve.

        One that leads to who was the master once, and lacks what must be seen, is replaced. Each is asked once who it
        leads to; a server has what it has written itself.

        Args:
            scope: the running one.
            reader: the master, by such links.
            reach: opens them.

        Raises:
            Exception: the driver's own error.
        """
        link, driver = reach.link_to(reader), reach.driver
        self._tell_if_back(reader)
        try:
            if link.identity is None:
                self._progress.learn(link, *driver.standing(link.raw))
            if not self.master_lacks(scope, link, driver):
                return link
        except PositionError as error:
            logger.warning("The master's position cannot be read: %s", error)
            return link
        except driver.module.Error as error:
            if not driver.unreachable(error):
                raise
        reach.drop(reader)
        return reach.link_to(reader)

    def master_lacks(self, scope: Scope, link: L, driver: Driver) -> bool:
        """Say whether a link to the master leads to one that was the master once, and lacks what the scope must see.

        A server has what it has written itself, so it is asked only for what others have written: after a failover.
        Where nobody has asked yet who it is, nothing can be said.

        Args:
            scope: the running one.
            link: in no transaction.
            driver: asks.

        Raises:
            Exception: the driver's own error.
        """
        must_see = scope.must_see.get(self._name) if self._exist else None
        identity = link.identity or getattr(link.raw, "identity", None)
        if must_see is None or identity is None or must_see.is_written_by(identity):
            return False
        return not self._has_reached(link, must_see, driver)

    def _comes(self, scope: Scope, link: L, position: Position, driver: Driver) -> bool:
        """Wait for a slave that was behind, once a scope and no longer than the option ``wait``."""
        if not self._options.wait or scope.has_waited:
            return False
        scope.has_waited = True
        try:
            return driver.wait_for(link.raw, position, self._options.wait) and self._has_reached(link, position, driver)
        except driver.module.Error as error:
            logger.info("A slave that was waited for has failed: %s", error)
            return False

    def lack(self, scope: Scope) -> str:
        """Say why the master must serve the reads of the scope, where no slave can.

        Returns:
            ``own-write`` or ``marker`` where there is something that a slave might lack, else ``no-slave``.

        Raises:
            NoServerError: the master may not (the option ``fallback``).
        """
        if self._exist and self._name in scope.must_see:
            return "own-write" if scope.has_written(self._name) else "marker"
        if self._options.fallback == "error":
            raise NoServerError(
                'No slave can serve the read, and the option "fallback" is "error", so the master does not. Slaves '
                "that have failed are tried again by themselves.",
                server=self._name,
            )
        count("takeover", self._name, "")
        if not self._taken_over:
            self._taken_over = True
            logger.warning("The master serves the reads of %s, because no slave can.", self._name)
        return "no-slave"

    # How far behind (the option max_lag)

    def _is_near(self, slave: S, reach: Reach[S, L]) -> bool:
        assert self._lag is not None  # noqa: S101 - asked before; for the type checker
        is_near = self._lag.admits(slave, partial(self._seconds_behind, slave, reach))
        if is_near == (slave in self._far):
            self._far ^= {slave}
            if is_near:
                tell("back", self._name, slave.name, "The slave %s is near enough again.", slave.name)
            else:
                text = "The slave %s is more than %g s behind, and gets no reads."
                tell("behind", self._name, slave.name, text, slave.name, self._lag.max_lag)
        return is_near

    def _seconds_behind(self, slave: S, reach: Reach[S, L]) -> float:
        driver = reach.driver
        with reach.borrowed(slave) as raw:
            seconds = driver.seconds_behind(raw)
            if seconds is not None:
                return seconds
            with reach.borrowed(None) as master:
                written = driver.standing(master)[1]  # before the slave is asked: it may be ahead of that, not behind
            reached = driver.standing(raw)[1]
        if written is None or reached is None:
            return 0
        return self._position_clock.seconds_behind(written, reached)

    # Faults

    def may_read_again(self, scope: Scope, link: L, error: BaseException, reach: Reach[S, L]) -> bool:
        """Say whether a read that a slave has failed may run on another server, if it is in no transaction (F1).

        A slave that is gone rests. Where the time for an answer was over, a new connection decides: a slave that can
        be reached was asked for something slow, and the error is the application's.
        """
        driver, server = reach.driver, link.server
        if driver.unreachable(error):
            may_be_slow = driver.timed_out(link.raw, error)
            reach.drop(server)
            if may_be_slow and self._answers(server, reach):
                return False
            self._lose(scope, server, error, reach)
            return True
        if driver.conflicted(error):
            scope.avoid_slave(self._key, server)
            return True
        return False

    def _answers(self, server: S, reach: Reach[S, L]) -> bool:
        try:
            with reach.borrowed(server):
                return True
        except reach.driver.module.Error:
            return False

    def _lose(self, scope: Scope, server: S, error: BaseException, reach: Reach[S, L]) -> None:
        """Leave a slave alone that cannot be reached: this scope until it ends, others for `downtime`."""
        reach.drop(server)
        self._lost_at[server] = time.monotonic()
        if self._health.failed(server):
            text = "The slave %s cannot be reached, and rests for %g s: %s"
            tell("rest", self._name, server.name, text, server.name, self._options.downtime, error)
        scope.avoid_slave(self._key, server)
