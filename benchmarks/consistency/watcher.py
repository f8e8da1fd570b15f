"""Records when each write appeared on the slave, over a connection of its own."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.testing.pair import ReplicatedPair

#: Seconds between two looks.
EVERY: Final = 0.005


class Watcher:
    """Looks at the slave all the time, over a connection of its own, while a block runs.

    A row has appeared when the first answer that shows it has arrived. So it certainly is there from then on, and it
    was not there one look earlier; reads that were sent between these two moments count as not possible.

    Args:
        pair: whose slave.
        first: the lowest number of the visitors that are watched.
        appeared: called with a visitor, the number of a write, and the moment.

    Attributes:
        longest: seconds between the two looks that lay furthest apart.
    """

    def __init__(self, pair: ReplicatedPair, first: int, appeared: Callable[[int, int, float], None]) -> None:
        self._pair = pair
        self._first = first
        self._appeared = appeared
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher of the slave")
        self._error: Exception | None = None
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        try:
            self._look_again_and_again()
        except Exception as error:  # noqa: BLE001 - raised where the block ends
            self._error = error

    def _look_again_and_again(self) -> None:
        count, last = 0, time.monotonic()
        with closing(self._pair.connect("slave")) as connection, connection.cursor() as cursor:
            while not self._enough.wait(EVERY):
                cursor.execute("SELECT COUNT(*) FROM entry")
                ((now_there,),) = cursor.fetchall()
                if now_there != count:
                    cursor.execute("SELECT visitor, number FROM entry WHERE visitor >= %s", (self._first,))
                    rows = cursor.fetchall()
                    at, count = time.monotonic(), now_there
                    for visitor, number in rows:
                        self._appeared(visitor, number, at)
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
