"""Counts round trips by their time, behind proxies that delay the answers of the servers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.testing import Proxy

DELAY = 0.2


class RoundTrips:
    """Counts how many answers are waited for, one after another. No answer comes before its delay is over.

    Args:
        proxies: those of all servers.
    """

    def __init__(self, *proxies: Proxy) -> None:
        self._proxies = proxies

    def __call__(self, run: Callable[[], object]) -> int:
        """Return the number of round trips while something runs."""
        self._delay(DELAY)
        try:
            began = time.monotonic()
            run()
            return int((time.monotonic() - began) / DELAY)
        finally:
            self._delay(0)

    def _delay(self, seconds: float) -> None:
        for proxy in self._proxies:
            proxy.delay(seconds)
