"""Run a safe request again on the master, if a write in it could not be moved there (R5)."""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from threading import get_ident
from typing import TYPE_CHECKING, Final, NamedTuple

from replswitch.errors import SlaveWriteError
from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

#: A request whose first try took longer than this, in seconds, does not run again. Its visitor has waited long enough.
LONGEST_TRY: Final = 10

#: How many endpoints are remembered. The least recently used endpoint is forgotten first.
ENDPOINTS_KEPT: Final = 1000

#: An endpoint is forgotten after this many requests in a row that have written nothing.
FORGOTTEN_AFTER: Final = 20


class Replay(BaseException):
    """Ends the first try of a request that is about to run again.

    It is not an `Exception`, so error handlers and error reports ignore it, and transactions roll back.

    Attributes:
        error: the error to raise if the request may not run again after all; usually a SlaveWriteError.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


# Replaces the error of a `Replay` that has been handled.
_SPENT: Final = Exception()


class Refusal(NamedTuple):
    """A write in slave state that could not be moved, with its database, its server and its place in the code."""

    database: str
    server: str
    place: str


class Framework:
    """The framework's part of a request that may run again. A binding overrides the methods that it needs."""

    def endpoint(self) -> Hashable:
        """Return the endpoint that the framework has found for the request; None if it has found none yet."""
        return None

    def waits_for_this_thread(self) -> bool:
        """Return whether this code runs in a helper thread, whose errors reach the request's waiting thread."""
        return False

    def refused(self) -> None:
        """React to a write that could not be moved. The response will be an error, or will be discarded."""


class SafeRequest:
    """One try of a request whose method promises to write nothing.

    For speed, it has no ``__init__``, because `replswitch.request.policy` makes an object for each safe request. The
    policy sets the slots.

    Attributes:
        endpoints: the application's endpoints that have written.
        endpoint: the endpoint of the request, or the path until the framework has resolved the endpoint.
        framework: the part of the request that the framework handles.
        is_repeatable: True if the request may run again after this try; False in a second try.
        began_at: when the try began, by `time.monotonic`.
        thread: the id of the thread that the request runs in.
        commits_outside: the number of commits outside any request up to the start of the try.
        refusal: the first write of the request that could not be moved; None without one.
        has_committed_elsewhere: something was committed in a store that replswitch does not switch.
        runs_again: this is the first try, and a second one follows.
    """

    __slots__ = (
        "__dict__",
        "began_at",
        "commits_outside",
        "endpoint",
        "endpoints",
        "is_repeatable",
        "refusal",
        "thread",
    )

    endpoints: Endpoints
    endpoint: Hashable
    framework: Framework = Framework()
    is_repeatable: bool
    began_at: float
    thread: int
    commits_outside: int
    refusal: Refusal | None
    has_committed_elsewhere = False
    runs_again = False

    def refuse(self, database: Hashable, refusal: Refusal) -> None:
        """Record that a write could not be moved, and remember that the endpoint writes to this database."""
        self.refusal = self.refusal or refusal
        self.learn({database})
        self.framework.refused()

    def learn(self, databases: Iterable[Hashable]) -> None:
        """Remember that the endpoint has written to these databases, or has tried to."""
        found = self.framework.endpoint()
        self.endpoint = self.endpoint if found is None else found
        self.endpoints.learn(self.endpoint, databases)

    @property
    def may_run_again(self) -> bool:
        """Whether this is the first try, and it has not taken too long."""
        return self.is_repeatable and not self.runs_again and time.monotonic() - self.began_at < LONGEST_TRY

    @property
    def runs_here(self) -> bool:
        """Whether a `Replay` that is raised in this thread reaches the request.

        If not, a thread pool of the application may lose the exception, and code that waits for the result would wait
        for ever.
        """
        return self.thread == get_ident() or self.framework.waits_for_this_thread()


def repeats(raised: BaseException, *, may_run_again: bool) -> bool:
    """Return whether a request runs again after an exception ended its first try. If not, re-raise the exception.

    Args:
        raised: the exception; a `Replay` may be part of an exception group.
        may_run_again: see `replswitch.scope.Scope.may_run_again`.

    Raises:
        Exception: the error that a `Replay` contains, if the request may not run again.
    """
    found: BaseException | None = raised
    if isinstance(raised, BaseExceptionGroup):
        found = raised.subgroup(Replay)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
    if not isinstance(found, Replay):
        return may_run_again
    # Frameworks keep the exception that ended a request in a frame of its own traceback. The reference cycle would
    # keep links open until Python's garbage collector runs.
    error, found.error = found.error, _SPENT
    error.__traceback__ = error.__traceback__ or found.__traceback__
    raised.__traceback__ = found.__traceback__ = found.__cause__ = found.__context__ = None
    try:
        if not may_run_again:
            raise error
    finally:
        del error
    return True


def committed_on_close(refusal: Refusal) -> SlaveWriteError:
    """Return the error of a request that cannot run again, because closing its first response has committed something.

    Args:
        refusal: the write that could not be moved.
    """
    return SlaveWriteError(
        f"A write in slave state, at {refusal.place}, was not moved to the master. Its request does not run again, "
        "because closing the first response has committed something, and a second run would commit it once more. Call "
        "use_master() before the first statement that belongs to the write.",
        server=refusal.server,
        place=refusal.place,
    )


class _Endpoint:
    """What replswitch remembers about one endpoint: the databases that its safe requests wrote to."""

    def __init__(self) -> None:
        self.databases: frozenset[Hashable] = frozenset()
        self.places: set[str] = set()  # a warning was logged for each
        self.idle = 0  # requests in a row that have written nothing


class Endpoints:
    """The endpoints whose safe requests have written, with the databases that they wrote to.

    The threads of a process share them.

    Attributes:
        known: a record for each such endpoint; usually empty.
    """

    def __init__(self) -> None:
        self.known: OrderedDict[Hashable, _Endpoint] = OrderedDict()
        self._lock = ProcessLock()
        _all.add(self)

    def databases(self, endpoint: Hashable) -> Iterable[Hashable]:
        """Return the databases that the master serves from the start when a request goes to the endpoint."""
        known = self.known.get(endpoint)
        return () if known is None else known.databases

    def learn(self, endpoint: Hashable, databases: Iterable[Hashable]) -> None:
        """Remember that a request to an endpoint has written, or has tried to."""
        with self._lock:
            known = self.known.setdefault(endpoint, _Endpoint())
            known.databases |= frozenset(databases)
            self.known.move_to_end(endpoint)
            if len(self.known) > ENDPOINTS_KEPT:
                self.known.popitem(last=False)

    def is_new(self, endpoint: Hashable, place: str) -> bool:
        """Return True at the first call for a pair of endpoint and place, and False at later calls."""
        with self._lock:
            known = self.known.setdefault(endpoint, _Endpoint())
            is_new = place not in known.places
            known.places.add(place)
        return is_new

    def used(self, endpoint: Hashable, *, wrote: bool) -> None:
        """Record whether a request that began on the master has written."""
        with self._lock:
            known = self.known.get(endpoint)
            if known is None:
                return
            self.known.move_to_end(endpoint)
            known.idle = 0 if wrote else known.idle + 1
            if known.idle >= FORGOTTEN_AFTER:
                del self.known[endpoint]

    def forget(self) -> None:
        """Forget every endpoint."""
        with self._lock:
            self.known.clear()


# The `Endpoints` of every application in this process.
_all: Final[weakref.WeakSet[Endpoints]] = weakref.WeakSet()


def forget_endpoints() -> None:
    """Forget all endpoints of all applications in this process, so that one test does not change the next."""
    for endpoints in tuple(_all):
        endpoints.forget()
