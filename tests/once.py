"""Counts what a request should do once: compare a position, merge and write down a marker, settle its writes."""

from __future__ import annotations

import gc
from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING, Any

from replswitch.positions import Position
from replswitch.request import marker
from replswitch.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Once:
    """Counts from when it is made; `of` returns what one call has cost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times: Counter[str] = Counter()
        for kind in Position.__subclasses__():
            self._count(monkeypatch, kind, "includes")
        self._count(monkeypatch, marker.Marker, "merge")
        self._count(monkeypatch, marker, "dump")
        self._count(monkeypatch, Scope, "settle")

    def _count(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        counted = getattr(owner, name)

        @wraps(counted)
        def count(*arguments: Any) -> Any:
            self.times[name] += 1
            return counted(*arguments)

        monkeypatch.setattr(owner, name, count)

    def of(self, call: Callable[..., object], *arguments: Any, **options: Any) -> dict[str, int]:
        """Return how often each was done in a call."""
        gc.collect()  # responses of earlier tests end their requests only now, and would be counted
        self.times.clear()
        call(*arguments, **options)
        return {name: self.times[name] for name in ("includes", "merge", "dump", "settle")}


FIRST_WRITE = {"includes": 0, "merge": 0, "dump": 1, "settle": 1}
"""A POST that writes, of a visitor without a marker."""

NEXT_WRITE = {"includes": 0, "merge": 1, "dump": 1, "settle": 1}
"""The same with one. The markers are merged at the end."""

KNOWN_SLAVE = {"includes": 1, "merge": 0, "dump": 0}
"""A GET that reads from a slave of which it is known that it has what the marker asks for."""
