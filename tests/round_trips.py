"""Counts round trips, behind proxies that delay the answers of the servers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replswitch.testing import Proxy

DELAY = 0.1
"""Seconds that an answer is held back, so that what a client sends without waiting for it is no round trip more."""


class RoundTrips:
    """Counts how many answers are waited for, one after another.

    Args:
        proxies: those of all servers.

    Attributes:
        count: the number of round trips in the latest block.
    """

    def __init__(self, *proxies: Proxy) -> None:
        self._proxies = proxies
        self.count = 0

    def __call__(self, run: Callable[[], object]) -> int:
        """Return the number of round trips while something runs."""
        with self.counted():
            run()
        return self.count

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the round trips of a block."""
        before = self._total()
        self._delay(DELAY)
        try:
            yield
            self.count = self._total() - before
        finally:
            self._delay(0)

    def _total(self) -> int:
        return sum(proxy.round_trips for proxy in self._proxies)

    def _delay(self, seconds: float) -> None:
        for proxy in self._proxies:
            proxy.delay(seconds)
