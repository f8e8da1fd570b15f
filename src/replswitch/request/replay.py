"""Running a safe request again on the master, when a write in it could not move there (R5)."""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from threading import get_ident
from typing import TYPE_CHECKING, Final, NamedTuple

from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

#: A first try that has taken longer than this, in seconds, is not repeated: its visitor has waited long enough.
LONGEST_TRY: Final = 10

#: How many endpoints are remembered. The one that was not used for the longest time is forgotten first.
ENDPOINTS_KEPT: Final = 1000

#: After so many requests in a row that have written nothing, an endpoint is forgotten.
FORGOTTEN_AFTER: Final = 20


class Replay(BaseException):
    """Ends the first try of a request that is about to run again.

    It is no `Exception`: error handlers and error reports leave it alone, and transactions roll back.

    Attributes:
        error: what to raise if the request may not run again after all, mostly the SlaveWriteError.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


# What a `Replay` has in it when it is dealt with.
_SPENT: Final = Exception()


class Refusal(NamedTuple):
    """A write in slave state that could not move: the database's name in markers, the server, the place of the code."""

    database: str
    server: str
    place: str


class SafeRequest:
    """One try of a request whose method promises to write nothing.

    It has no ``__init__``, because it is made in every such request: `replswitch.request.policy` sets what is needed.

    Attributes:
        endpoints: what is known of the application's endpoints.
        endpoint: the request's: its path, until the framework has found out more.
        find_endpoint: returns the endpoint as the framework knows it by now; None where the one above holds.
        is_repeatable: the request may run again. The second try may not.
        began_at: when the try began, by `time.monotonic`.
        thread: the request's own.
        commits_outside: how many commits outside any request there had been by then.
        is_waited_for: says in another thread than that whether the request waits for it.
        refusal: the first write of it that could not move; None without one.
        is_streamed: its body may write after the request has ended for us.
        runs_again: it is the first try, and a second one follows.
    """

    endpoints: Endpoints
    endpoint: Hashable
    find_endpoint: Callable[[], Hashable] | None = None
    is_repeatable = False
    began_at: float
    thread: int
    commits_outside: int
    is_waited_for: Callable[[], bool] | None = None
    refusal: Refusal | None = None
    is_streamed = False
    runs_again = False

    def refuse(self, database: Hashable, refusal: Refusal) -> None:
        """Note that a write could not move, and remember it of the endpoint."""
        self.refusal = self.refusal or refusal
        self.learn({database})

    def learn(self, databases: Iterable[Hashable]) -> None:
        """Remember of the endpoint that it has written, or tried to."""
        found = None if self.find_endpoint is None else self.find_endpoint()
        self.endpoint = self.endpoint if found is None else found
        self.endpoints.learn(self.endpoint, databases)

    @property
    def may_run_again(self) -> bool:
        """Whether it is the first try, and has not taken too long."""
        return self.is_repeatable and not self.runs_again and time.monotonic() - self.began_at < LONGEST_TRY

    @property
    def runs_here(self) -> bool:
        """Whether a `Replay` that is raised in this thread reaches the request.

        A foreign pool of threads may lose it, and whoever waits for the result would wait for ever.
        """
        return self.thread == get_ident() or (self.is_waited_for is not None and self.is_waited_for())


def repeats(raised: BaseException, *, may_run_again: bool) -> bool:
    """Say whether a request runs again after what has ended its first try; if not, that is to be raised.

    Args:
        raised: the exception; a `Replay` may be in a group of them.
        may_run_again: see `replswitch.scope.Scope.may_run_again`.

    Raises:
        Exception: the error that a `Replay` has in it, if the request may not run again.
    """
    found: BaseException | None = raised
    if isinstance(raised, BaseExceptionGroup):
        found = raised.subgroup(Replay)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
    if not isinstance(found, Replay):
        return may_run_again
    # Frameworks keep what has ended a request in one of the frames that lead to it. In that circle, links would wait
    # for Python's garbage collector.
    error, found.error = found.error, _SPENT
    error.__traceback__ = error.__traceback__ or found.__traceback__
    raised.__traceback__ = found.__traceback__ = found.__cause__ = found.__context__ = None
    try:
        if not may_run_again:
            raise error
    finally:
        del error
    return True


class _Endpoint:
    """What is known of one endpoint."""

    def __init__(self) -> None:
        self.databases: frozenset[Hashable] = frozenset()
        self.places: set[str] = set()  # of which a warning was logged
        self.idle = 0  # requests in a row that have written nothing


class Endpoints:
    """The endpoints whose safe requests have written, with the databases that they wrote to.

    Shared by the threads of a process.

    Attributes:
        known: what is known of each; mostly of none.
    """

    def __init__(self) -> None:
        self.known: OrderedDict[Hashable, _Endpoint] = OrderedDict()
        self._lock = ProcessLock()
        _all.add(self)

    def databases(self, endpoint: Hashable) -> Iterable[Hashable]:
        """Return the databases that the master serves from the start of a request."""
        known = self.known.get(endpoint)
        return () if known is None else known.databases

    def learn(self, endpoint: Hashable, databases: Iterable[Hashable]) -> None:
        """Remember that a request of an endpoint has written, or tried to."""
        with self._lock:
            known = self.known.setdefault(endpoint, _Endpoint())
            known.databases |= frozenset(databases)
            self.known.move_to_end(endpoint)
            if len(self.known) > ENDPOINTS_KEPT:
                self.known.popitem(last=False)

    def is_new(self, endpoint: Hashable, place: str) -> bool:
        """Say once of each endpoint and place that it is new."""
        with self._lock:
            known = self.known.setdefault(endpoint, _Endpoint())
            is_new = place not in known.places
            known.places.add(place)
        return is_new

    def used(self, endpoint: Hashable, *, wrote: bool) -> None:
        """Note what became of a request that began on the master."""
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


# Those of every application in this process.
_all: Final[weakref.WeakSet[Endpoints]] = weakref.WeakSet()


def forget_endpoints() -> None:
    """Forget all endpoints of all applications in this process, so that one test does not change the next."""
    for endpoints in tuple(_all):
        endpoints.forget()
