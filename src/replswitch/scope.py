"""What one request, or one job, knows: the marker it came with, its own writes, the slave chosen for it."""

from __future__ import annotations

import logging
import time
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from replswitch.lock import ProcessLock
from replswitch.place import application_place
from replswitch.request.marker import Marker, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from replswitch.decision import Decision
    from replswitch.positions import Position
    from replswitch.request.replay import SafeRequest

logger = logging.getLogger(__name__)

#: How many decisions a scope remembers: the first ones. They go into a response header.
DECISIONS_KEPT: Final = 20

# What changes seldom needs no lock of its own: threads may share a scope.
_changing: Final = ProcessLock()

# The unsafe requests that run, by the ids of their scopes.
_unsafe: Final[WeakValueDictionary[int, Scope]] = WeakValueDictionary()


class Outside:
    """What happens in this process outside any request.

    Attributes:
        commits: how many there were on a master. A request that has seen one more does not run again (R5): nothing
            shows whether it was made for it, as in a thread of its own.
    """

    commits = 0

    @classmethod
    def count(cls, scope: Scope | None) -> None:
        """Count a commit, unless it was made in a request's scope."""
        if scope is None or not (scope.is_request or scope.within is not None):
            with _changing:
                cls.commits += 1


def waiting(scope: Scope | None = None) -> list[Scope]:
    """Return the requests that may wait for what is written outside any request, as in a thread of their own (M1).

    These are all unsafe requests that run in the process and are not answered: nothing shows which of them waits.

    Args:
        scope: where it is written, which may be a block's scope; None outside any.
    """
    if scope is not None and (scope.is_request or scope.within is not None):
        return []
    found = [reference() for reference in _unsafe.valuerefs()]
    return [each for each in found if each is not None and not each.answered]


class Scope:
    """What one request knows. Outside a request, the outermost ``use_*()`` has one until it is taken back.

    Most defaults are on the class and are written on first use: every ``with db.use_slave():`` outside a request makes
    a scope, and few of them have anything to write down.

    Attributes:
        master_only: everything in this scope runs on the master, whatever the code asks for.
        recorded: a database that records its commits was used.
        unrecorded: a database whose commits are not recorded was asked for its state.
        wrote: what was committed on the master in this scope; None without a commit.
        marker: what the visitor must see, as their request told; None without a marker that holds.
        recently_marked: the marker is so young that it would hold even without positions.
        must_see: how far the slaves of each replicated set must have come to serve this scope, by the set's name: what
            the marker asks for, and what was written since. Replaced, never changed.
        must_see_since: when the latest of that was written; 0 where there is nothing.
        written: the replicated sets that a commit was recorded of, by name. Replaced, never changed.
        has_unmarked: something was committed on the master that makes no marker and must not be done twice.
        is_safe: the request's method promises to write nothing; False outside requests.
        safe_request: what is needed to run the request again (R5); None where that is not possible.
        decision: what was decided for the request as a whole; None outside a request.
        answered: the headers of the response are out, and no marker can be added any more.
        forced_master: the databases that the master must serve, with the reason; and the replicated sets, by name, of
            which a write's position is unknown. Replaced, never changed.
        version: grows with every change that decides which server may serve a read. While it is the same, so is the
            choice of a server.
        pending: what finds out about statements that may have written, by the link that they ran on. Replaced, never
            changed.
        slaves: the slave that serves the reads of each database, once it is chosen (S6). Several threads may choose
            at once: use ``setdefault``, which keeps the first choice.
        avoided: ``(database, server)`` for each server that has failed or is behind. Replaced, never changed.
        has_waited: a read has waited for a slave already (the option ``wait``).
        within: the scope around this one: that of the request that makes this request, or starts this job. What is
            written here is written there, too.
        ended: the request is over. A thread or task that outlives it still sees what the scope knew.
    """

    master_only = False
    recorded = False
    unrecorded = False
    has_unmarked = False
    is_safe = False
    safe_request: SafeRequest | None = None
    written: frozenset[Hashable] = frozenset()
    wrote: Marker | None = None
    marker: Marker | None = None
    recently_marked = False
    must_see: Mapping[str, Position] = MappingProxyType({})
    must_see_since: float = 0
    has_waited = False
    decision: Decision | None = None
    answered = False
    within: Scope | None = None
    ended = False
    forced_master: Mapping[Hashable, str] = MappingProxyType({})
    pending: Mapping[Hashable, Callable[[Scope], None]] = MappingProxyType({})
    avoided: frozenset[tuple[Hashable, object]] = frozenset()

    _late = False
    _decisions: tuple[Decision, ...] = ()
    _at_end: tuple[Callable[[Scope], None], ...] = ()
    _settling: ProcessLock | None = None

    def __init__(self) -> None:
        self.version = 0  # read for every statement, which is quicker on the object than on its class
        self.slaves: dict[Hashable, Any] = {}

    # What must be seen

    def wait_for_writes(self) -> None:
        """Count as written here what is committed outside any request until this one is answered (M1)."""
        _unsafe[id(self)] = self

    def adopt_marker(self, marker: Marker, max_age: float) -> None:
        """Begin with a marker.

        Args:
            marker: what must be seen.
            max_age: seconds that a marker without positions holds.
        """
        self.marker = marker
        self.must_see, self.must_see_since = marker.positions, marker.placed_at or 0
        self.master_only = marker.written_at is not None
        self.recently_marked = marker.placed_at is not None and time.time() - marker.placed_at <= max_age

    def all_written(self) -> Marker | None:
        """Return what code that continues from here must see: the marker, and what was written since. None: nothing."""
        self.settle()
        if self.marker is None or self.wrote is None:
            return self.wrote or self.marker
        return self.wrote.merge(self.marker)

    def has_written(self, name: str) -> bool:
        """Say whether a write with a position was recorded of a replicated set."""
        return self.wrote is not None and name in self.wrote.positions

    def record(self, name: str, position: Position | None) -> None:
        """A write was committed on the master.

        Args:
            name: of the replicated set.
            position: from which on a slave has it. None where that is unknown: the master serves all databases of the
                set from now on (M8).
        """
        now = time.time()
        with _changing:
            if position is None:
                self._absorb_writes(Marker(now))
                self.forced_master = {**self.forced_master, name: "own-write"}
            else:
                self._absorb_writes(Marker(positions={name: position}, placed_at=now))
            self.written |= {name}
            self.version += 1
        for other in (self.within,) if self.within is not None else waiting(self):
            other.record(name, position)
        if self.within is None and self.answered and not self._late:
            self._late = True
            logger.warning(
                "A write was committed after the response's headers were sent, at %s. The visitor's next request "
                "does not know of it and may miss it. Commit before the first piece of the body is produced.",
                application_place(),
            )

    def hand_back(self) -> None:
        """Find out what was written here, and let the scope around know what it says of this one."""
        self.settle()
        if self.within is not None:
            self.within.recorded |= self.recorded
            self.within.unrecorded |= self.unrecorded
            self.within.has_unmarked |= self.has_unmarked

    def _absorb_writes(self, wrote: Marker) -> None:
        self.wrote = wrote if self.wrote is None else self.wrote.merge(wrote, inf)
        self.must_see_since = max(self.must_see_since, wrote.placed_at or 0)
        self.must_see = joined(wrote.positions, self.must_see)

    # Statements that may have written

    def add_pending(self, link: Hashable, resolve: Callable[[Scope], None]) -> None:
        """Note that statements on a link may have written. ``resolve`` finds out, and records it in its argument."""
        with _changing:
            if self._settling is None:
                self._settling = ProcessLock()
            self.pending = {**self.pending, link: resolve}
            self.version += 1

    def settle(self, only: Hashable = None) -> None:
        """Find out whether pending statements wrote. A thread that comes meanwhile waits for the answers.

        Args:
            only: those on this link; on all by default.
        """
        while (self.pending if only is None else only in self.pending) and self._settling is not None:
            with self._settling:
                for link, resolve in self.pending.items():
                    if only is not None and link is not only:
                        continue
                    resolve(self)
                    with _changing:  # unless something else is pending there by now
                        self.pending = {k: v for k, v in self.pending.items() if (k, v) != (link, resolve)}

    def may_run_again(self) -> bool:
        """Say whether the request should and may run again (R5).

        A write in it could not move, nothing was committed in it or outside any request, and nothing of its response is
        out.
        """
        request = self.safe_request
        if request is None or request.refusal is None or self.answered or self.ended or not request.may_run_again:
            return False
        self.settle()
        return self.wrote is None and not self.has_unmarked and request.commits_outside == Outside.commits

    # Which server serves

    def force_master(self, database: Hashable, reason: str, *, again: bool = False) -> None:
        """Let the master serve a database until the scope ends.

        The first reason given is kept, unless ``again`` or it is the weakest, ``learned``.
        """
        with _changing:
            if again or self.forced_master.get(database, "learned") == "learned":
                self.forced_master = {**self.forced_master, database: reason}
                self.version += 1

    def avoid_slave(self, database: Hashable, server: object) -> None:
        """Let ``server``, which has failed or is behind, serve no more reads of ``database``."""
        with _changing:
            self.avoided = self.avoided | {(database, server)}
            if self.slaves.get(database) is server:
                self.slaves.pop(database, None)
                self.version += 1

    # What was decided

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Which server was chosen and why, in the order of the choices; equal neighbours are listed once."""
        return self._decisions

    def note(self, decision: Decision) -> None:
        """Write a decision down."""
        if decision not in self._decisions[-1:] and len(self._decisions) < DECISIONS_KEPT:
            self._decisions = (*self._decisions, decision)

    @property
    def is_request(self) -> bool:
        """Whether it is a request's, and not a block's outside any request."""
        return self.decision is not None

    # The end

    def call_at_end(self, callback: Callable[[Scope], None]) -> None:
        """Call a function with the scope when it ends, possibly from another thread."""
        with _changing:  # another thread may end the scope meanwhile
            self._at_end = (*self._at_end, callback)

    def end(self) -> None:
        """End the scope."""
        self.ended = True
        if self.decision is not None and not self.is_safe:
            _unsafe.pop(id(self), None)
        if self.within is not None or (self.pending and waiting(self)):
            self.hand_back()
        if self.pending and self.is_request:
            # The request failed before its response, so nothing has asked. Connections are not kept for that, however
            # long the server keeps the request. Code that outlives it is on the safe side.
            self.pending, self.master_only = {}, True
        if self._at_end:
            callbacks, self._at_end = self._at_end, ()
            for callback in callbacks:
                callback(self)
