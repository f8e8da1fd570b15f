"""Notice the commits on the engines of this process that are not replicated."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import RootTransaction

from replswitch.engine.writes import committed_elsewhere
from replswitch.sqlalchemy.facts import usable
from replswitch.sqlalchemy.pooled import LINK

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Transaction


def watch_other_engines() -> None:
    """Notice the commits on engines that are not replicated. A request with such a commit does not run again (R5).

    This replaces a method of SQLAlchemy. With a listener for all engines, SQLAlchemy would look for listeners at each
    step of each connection, and a session with one query would take 50 more calls of functions.
    """
    commit: Any = RootTransaction.commit
    if not hasattr(commit, "notices_other_engines"):
        RootTransaction.commit = _noticing(commit)  # type: ignore[method-assign]  # see above


def _noticing(commit: Callable[[Transaction], None]) -> Any:
    @wraps(commit)
    def run(transaction: Transaction) -> None:
        connection = transaction.connection
        if usable(connection) and LINK not in connection.connection.info:
            committed_elsewhere()
        commit(transaction)

    run.notices_other_engines = True  # type: ignore[attr-defined]  # also seen if another tool wraps this function
    return run
