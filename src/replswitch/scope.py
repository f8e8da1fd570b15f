"""What is known of one request or job, such as its incoming marker, its own writes, and the slave chosen for it."""

from __future__ import annotations

import logging
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from replswitch.lock import ProcessLock
from replswitch.outside import Outside
from replswitch.place import application_place
from replswitch.request.marker import Marker, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from replswitch.decision import Decision
    from replswitch.positions import Position
    from replswitch.request.replay import SafeRequest
    from replswitch.request.rollout import Ticket

logger = logging.getLogger(__name__)

#: How many decisions a scope keeps, beginning with the first, because they are sent in a response header.
DECISIONS_KEPT: Final = 20

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})

# Threads may share a scope. Changes are rare, so one lock for all scopes is enough.
_changing: Final = ProcessLock()

# The unsafe requests that are running, by the ids of their scopes.
_unsafe: Final[WeakValueDictionary[int, Scope]] = WeakValueDictionary()


def waiting(scope: Scope | None = None) -> list[Scope]:
    """Return the requests that may be waiting for a write outside any request, such as a write in a thread (M1).

    It is not known which of them is waiting, so return all unsafe requests of the process without a response so far.

    Args:
        scope: the scope of the write, which may be the scope of a block; None outside any scope.
    """
    if scope is not None and (scope.is_request or scope.within is not None):
        return []
    if not _unsafe:  # as for most writes outside a request
        return []
    found = [reference() for reference in _unsafe.valuerefs()]
    return [each for each in found if each is not None and not each.answered]


class Scope:
    """What is known of one request. Outside a request, the outermost ``use_*()`` has a scope until it is reverted.

    Attributes that every request uses are slots, which are the fastest. Others have their default in the class.

    Attributes:
        master_only: everything in this scope runs on the master, whichever state the code sets.
        recorded: a database that records its commits was used.
        unrecorded: the code has read the state of a database whose commits are not recorded.
        wrote: the commits on the master in this scope, as a marker; None without a commit.
        marker: what the visitor must see, from the marker of the request; None without a valid marker.
        recently_marked: the marker is so young that it would be valid even without positions.
        must_see: the position, by replicated set, that slaves must have reached to serve this scope. It includes those
            of the marker and of all later writes. Replaced, never changed.
        must_see_since: the time of the latest write in ``must_see``; 0 without one.
        written: the names of the replicated sets with a recorded commit. Replaced, never changed.
        has_unmarked: something was committed on the master that makes no marker, but must not run twice.
        is_safe: the request's method is a safe one, such as GET; False outside requests.
        is_job: it is the scope of a job, which must see what the request that started the job must see.
        safe_request: the data for running the request again (R5); None if it cannot run again.
        decision: the decision for the request as a whole; None outside a request.
        answered: the headers of the response are sent, so no marker can be added any more.
        held_back: the option ``rollout`` leaves the visitor out (R6). None without this option, and outside requests.
        ticket: keeps the visitor on one side of the rollout; None if none is needed.
        is_open: it is an accepted websocket, for which writes after the headers are normal and cause no warning.
        forced_master: the databases that the master must serve, each with the reason; also the names of replicated sets
            with a write whose position is unknown. Replaced, never changed.
        lost_before: by replicated set, when a write was last lost together with its connection; see `record`.
        marked: the databases that the master has served because of the marker. Replaced, never changed.
        version: grows with every change that affects which server may serve a read, so that the server is chosen again.
        pending: a function for each link, which finds out whether its statements have written. Replaced, never changed.
        slaves: the chosen slave for the reads of each database (S6). Several threads may choose at the same time, so
            use ``setdefault``, which keeps the first choice.
        avoided: ``(database, server)`` for each server that has failed or has not caught up. Replaced, never changed.
        wait: seconds that a read may wait for a slave; 0 if the option ``wait`` of the database decides.
        has_waited: a read has already waited for a slave.
        within: the scope of the code that makes this request or starts this job. Writes are recorded in both scopes.
        is_streamed: the body of the response is sent after the request is over.
        ended: the request is over. A thread or task that outlives it still sees the data of the scope.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_at_end", "answered", "decision", "ended", "is_safe", "marker", "master_only",
        "pending", "safe_request", "slaves", "version", "within", "wrote",
    )  # fmt: skip

    recorded = unrecorded = has_unmarked = is_job = is_open = is_streamed = recently_marked = has_waited = False
    held_back: bool | None = None
    ticket: Ticket | None = None
    written: frozenset[Hashable] = frozenset()
    must_see: Mapping[str, Position] = MappingProxyType({})
    must_see_since: float = 0
    wait: float = 0
    forced_master: Mapping[Hashable, str] = MappingProxyType({})
    lost_before: Mapping[str, float] = MappingProxyType({})
    avoided: frozenset[tuple[Hashable, object]] = frozenset()
    marked: frozenset[Hashable] = frozenset()

    _late = False
    _decisions: tuple[Decision, ...] = ()
    _settling: ProcessLock | None = None

    def __init__(self) -> None:
        self.master_only = self.is_safe = self.answered = self.ended = False
        self.wrote: Marker | None = None
        self.marker: Marker | None = None
        self.safe_request: SafeRequest | None = None
        self.decision: Decision | None = None
        self.within: Scope | None = None
        self.version = 0
        self.pending: Mapping[Hashable, Callable[[Scope], None]] = _NOTHING
        self.slaves: dict[Hashable, Any] = {}
        self._at_end: tuple[Callable[[Scope], object], ...] = ()

    # What must be seen

    def wait_for_writes(self) -> None:
        """Until the response is sent, also record in this scope the commits that are made outside any request (M1)."""
        _unsafe[id(self)] = self

    def adopt_marker(self, marker: Marker, max_age: float) -> None:
        """Set the marker that the scope begins with.

        Args:
            marker: what the scope must see.
            max_age: seconds for which a marker without positions is valid.
        """
        self.marker = marker
        self.must_see, self.must_see_since = marker.positions, marker.placed_at or 0
        self.master_only = marker.written_at is not None
        self.recently_marked = marker.placed_at is not None and time.time() - marker.placed_at <= max_age

    def all_written(self) -> Marker | None:
        """Return what a job or inner request that begins now must see (the marker and all writes), or None."""
        self.settle()
        wrote, marker = self.wrote, self.marker
        return wrote or marker if wrote is None or marker is None else wrote.merge(marker)

    def has_written(self, name: str) -> bool:
        """Return whether a write with a position was recorded for the replicated set of this name."""
        return self.wrote is not None and name in self.wrote.positions

    def record(self, name: str, position: Position | None, lost_at: float = 0) -> None:
        """Record that a write was committed on the master.

        Args:
            name: the name of the replicated set.
            position: a slave that has reached it has the write. None if the position is unknown, so that the master
                serves all databases of the set from now on (M8).
            lost_at: when the write's link was lost (`time.monotonic`), else 0. Older links may lack the write.
        """
        scopes = self.with_enclosing()
        for other in waiting(scopes[-1]):
            scopes += other.with_enclosing()
        for scope in dict.fromkeys(scopes):
            scope._record(name, position, lost_at)

    def _record(self, name: str, position: Position | None, lost_at: float) -> None:
        now = time.time()
        with _changing:
            self.wrote = (self.wrote or Marker()).with_writes((name, position, now))
            if position is None:
                self.forced_master = {**self.forced_master, name: "own-write"}
                if lost_at:
                    self.lost_before = {**self.lost_before, name: lost_at}
            else:
                self.must_see_since = max(self.must_see_since, now)
                self.must_see = joined({name: position}, self.must_see)
            self.written |= {name}
            self.version += 1
        if self.within is None and self.answered and not self._late and not self.is_open:
            self._late = True
            logger.warning(
                "A write was committed after the response's headers were sent, at %s. The visitor's marker does not "
                "include it, so their next request may miss it. Commit before the first piece of the body is produced.",
                application_place(),
            )

    def with_enclosing(self) -> list[Scope]:
        """Return the scope and those that enclose it; the outermost is the last."""
        found = [self]
        while (scope := found[-1].within) is not None:
            found.append(scope)
        return found

    def hand_back(self) -> None:
        """Find out what was written in this scope, and pass the result on to the enclosing scope."""
        self.settle()
        if self.within is not None:
            self.within.recorded |= self.recorded
            self.within.unrecorded |= self.unrecorded
            self.within.has_unmarked |= self.has_unmarked

    # Statements that may have written

    def add_pending(self, link: Hashable, resolve: Callable[[Scope], None]) -> None:
        """Record that statements on a link may have written. ``resolve`` finds out if they have, and records it."""
        with _changing:
            if self._settling is None:
                self._settling = ProcessLock()
            self.pending = {**self.pending, link: resolve}
            self.version += 1

    def settle(self, only: Hashable = None) -> None:
        """Find out whether pending statements have written. If another thread is finding this out, wait for it.

        Args:
            only: the link whose statements are checked; all links by default.
        """
        while (self.pending if only is None else only in self.pending) and self._settling is not None:
            with self._settling:
                for link, resolve in self.pending.items():
                    if only is not None and link is not only:
                        continue
                    resolve(self)
                    with _changing:  # keep a newer pending write on the link
                        self.pending = {k: v for k, v in self.pending.items() if (k, v) != (link, resolve)}

    def may_run_again(self) -> bool:
        """Return whether the request should and may run again (R5).

        It should run again if a write in it could not be moved. It may run again if nothing was committed in it or
        outside any request, and no part of its response has been sent.
        """
        request = self.safe_request
        if request is None or request.refusal is None or self.answered or self.ended or not request.may_run_again:
            return False
        return not self.has_committed()

    def has_committed(self) -> bool:
        """Return whether something was committed that a second run of the request would commit twice (R5)."""
        request = self.safe_request
        self.settle()
        return (
            self.wrote is not None
            or self.has_unmarked
            or request is None
            or request.has_committed_elsewhere
            or request.commits_outside != Outside.commits
        )

    # Which server serves

    def force_master(self, database: Hashable, reason: str, *, again: bool = False) -> None:
        """Force a database to the master until the scope ends.

        Keep an earlier reason, unless ``again`` is true or the earlier reason is ``learned``, which is the weakest.
        """
        with _changing:
            if again or self.forced_master.get(database, "learned") == "learned":
                self.forced_master = {**self.forced_master, database: reason}
                self.version += 1

    def avoid_slave(self, database: Hashable, server: object) -> None:
        """Send no more reads of ``database`` to ``server``, which has failed or has not caught up."""
        with _changing:
            self.avoided = self.avoided | {(database, server)}
            if self.slaves.get(database) is server:
                self.slaves.pop(database, None)
                self.version += 1

    # The decisions

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The chosen servers and the reasons, in the order of the choices. Equal decisions in a row are listed once."""
        return self._decisions

    def note(self, decision: Decision) -> None:
        """Record a decision."""
        if decision not in self._decisions[-1:] and len(self._decisions) < DECISIONS_KEPT:
            self._decisions = (*self._decisions, decision)

    @property
    def is_request(self) -> bool:
        """Whether this is the scope of a request, and not the scope of a job or of a block outside any request."""
        return self.decision is not None

    # A websocket

    def open(self) -> None:
        """Begin the messages of a websocket. They may go on for hours, so undo `wait_for_writes`."""
        self.is_open = True
        _unsafe.pop(id(self), None)

    def rest(self) -> None:
        """Give back the connections that are held for the scope, before a websocket waits for its next message."""
        if done := [callback for callback in self._at_end if not callback(self)]:
            with _changing:
                self._at_end = tuple(callback for callback in self._at_end if callback not in done)

    def renew(self, *, max_age: float, position_max_age: float) -> None:
        """Treat the next message of a websocket like the visitor's next request, whose marker has all writes so far.

        The servers are chosen again. Writes that have become too old are left out of the marker.

        Args:
            max_age: seconds for which a write without a position is kept.
            position_max_age: seconds for which positions are kept.
        """
        with _changing:
            wrote, marker = self.wrote, self.marker
            known = wrote or marker if wrote is None or marker is None else wrote.merge(marker)
            if known is not None:
                known = known.holding(time.time(), max_age=max_age, position_max_age=position_max_age)
            self.adopt_marker(known or Marker(), max_age)  # first, because other threads may be reading
            self.marker = known
            self.forced_master, self.avoided, self.slaves, self.has_waited = _NOTHING, frozenset(), {}, False
            self.version += 1

    # The end

    def call_at_end(self, callback: Callable[[Scope], object]) -> None:
        """When the scope ends, call ``callback`` with the scope, possibly from another thread.

        In a websocket, also call it before each wait for a message, with `ended` still False, until it returns False.
        """
        with _changing:  # another thread may end the scope meanwhile
            self._at_end = (*self._at_end, callback)

    def end(self) -> None:
        """End the scope."""
        self.ended = True
        if self.decision is not None and not self.is_safe:
            _unsafe.pop(id(self), None)
        if self.within is not None or (self.pending and waiting(self)):
            self.hand_back()
        if self.pending and not self.is_request:
            Outside.may_have_written_at = time.time()
        elif self.pending:
            # The request failed before its response, so no server was asked about its pending writes. Drop them: they
            # would keep connections as long as the web server keeps the request. Later code uses the master.
            self.pending, self.master_only = {}, True
        if self._at_end:
            callbacks, self._at_end = self._at_end, ()
            for callback in callbacks:
                callback(self)
