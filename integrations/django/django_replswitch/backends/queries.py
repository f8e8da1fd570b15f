"""Django's log of queries, ``connection.queries``, with the side and the server of each."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class QueriesLog(deque[dict[str, Any]]):
    """The log of one connection.

    Args:
        limit: how many queries are kept.
        served_by: tells the side and the server of the statement that has just run.
    """

    def __init__(self, limit: int, served_by: Callable[[], dict[str, str]]) -> None:
        super().__init__(maxlen=limit)
        self._served_by = weakref.WeakMethod(served_by)  # the connection holds the log

    def append(self, query: dict[str, Any]) -> None:
        """Add a query that has just run."""
        served_by = self._served_by()
        super().append(LoggedQuery(query, {} if served_by is None else served_by()))


class LoggedQuery(dict[str, Any]):
    """What Django says of a query, ``sql`` and ``time``; and, when asked for them, its ``db`` and its ``server``.

    Iteration shows Django's own keys only: its documentation names them, and its tests hold it to them.
    """

    def __init__(self, query: dict[str, Any], served_by: dict[str, str]) -> None:
        super().__init__(query)
        self._served_by = served_by

    def __missing__(self, key: str) -> Any:
        return self._served_by[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value for ``key``."""
        return super().get(key, self._served_by.get(key, default))
