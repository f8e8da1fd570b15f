"""After a fork, no lock of replswitch is locked in the child (S12)."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from replswitch import scope, state, stats
from replswitch.decorators import use_master
from replswitch.engine import events
from replswitch.engine.health import Health
from replswitch.engine.lag import Lag, PositionClock
from replswitch.engine.rotation import KnownPositions
from replswitch.engine.servers import Link, Server
from replswitch.positions import MariaDBPosition
from replswitch.state import stack

POSITION = MariaDBPosition.parse("0-1-1")
HEALTH, LAG, CLOCK, KNOWN = Health(), Lag(1), PositionClock(), KnownPositions(30)
SERVER: Any = Server("slave", "slave")
LINK: Any = type("LinkWithoutConnection", (Link,), {"__init__": lambda self: setattr(self, "server", SERVER)})()
SCOPE = scope.Scope()


def make_scope() -> None:
    with use_master():
        frame = stack()
        assert frame is not None
        assert not frame.scope.ended


def settle() -> None:
    SCOPE.add_pending("link", lambda _: None)
    SCOPE.settle()


SCOPE.add_pending("link", lambda _: None)

LOCKS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "events": (events._lock, stats),
    "scopes": (scope._changing, lambda: scope.Scope().record("shop", POSITION)),
    "position queries of a scope": (SCOPE._settling, settle),
    "stacks": (state._making_scope, make_scope),
    "health": (HEALTH._lock, lambda: HEALTH.failed(SERVER)),
    "lag": (LAG._lock, lambda: LAG.admits(SERVER, lambda: 0)),
    "positions of the master": (CLOCK._lock, lambda: CLOCK.seconds_behind(POSITION, POSITION)),
    "positions of slaves": (KNOWN._lock, lambda: KNOWN.learn(LINK, "slave", POSITION)),
}


@pytest.mark.parametrize("name", LOCKS)
def test_s12_a_lock_that_another_thread_holds_at_a_fork_is_free_in_the_child(name: str) -> None:
    lock, use = LOCKS[name]
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            forked.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    # replswitch registers nothing with Python's fork hooks. A fork past the hooks might hang on the interpreter's lock.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns: there are threads
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # ends a child that hangs
        code = 1
        try:
            use()
            code = 0
        finally:
            os._exit(code)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    use()
