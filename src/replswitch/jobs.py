"""Pass the marker of a request on to the jobs that it starts: they must see its writes as well."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from replswitch.errors import PositionError
from replswitch.request.marker import dump, load
from replswitch.scope import Scope
from replswitch.state import beginning, push, stack

if TYPE_CHECKING:
    from collections.abc import Iterator


def carry() -> str:
    """Return a short text for a job: what the running request must see and has written; empty if there is nothing.

    Call it after the commit. The text is not signed, because only the application can write to its job queue.
    """
    frame = stack()
    marker = None if frame is None else frame.scope.all_written()
    return "" if marker is None else json.dumps(dump(marker), separators=(",", ":"))


@contextmanager
def resume(token: str, *, max_age: float = 10) -> Iterator[None]:
    """Make a block see what `carry` has recorded: a slave serves its reads only if it has all of that.

    The block is a scope of its own. It does not switch: without a ``use_slave()``, the master serves.

    Args:
        token: the result of `carry`.
        max_age: seconds that a write without a position holds, like the option ``cookie_max_age``; until then the
            master serves everything in the block. Positions hold however late the job runs.

    Raises:
        PositionError: the token does not come from `carry`.
    """
    scope = Scope()
    scope.is_job = True
    if token:
        try:
            marker = load(json.loads(token)).holding(time.time(), max_age=max_age, position_max_age=float("inf"))
        except (PositionError, TypeError, ValueError, RecursionError) as error:
            raise PositionError(f"resume() was given {token!r:.100}, which carry() did not return.") from error
        if marker is not None:
            scope.adopt_marker(marker, max_age)
    around = stack()
    if around is not None:  # the job runs within a request, and the visitor must see its writes
        scope.within = around.scope
    with push(beginning(scope)):
        yield
