"""The connection pool of one server. It lends open links, newest first, and neither pings nor reconnects.

replswitch has its own pool, because it needs only these two functions of a pool: lend a link, and take it back.
"""

from __future__ import annotations

from contextlib import suppress
from os import getpid
from time import monotonic
from typing import TYPE_CHECKING, Any

from replswitch.engine.servers import Link
from replswitch.forked import keep_open

if TYPE_CHECKING:
    from replswitch.drivers import Driver, Raw
    from replswitch.engine.servers import Server


class LeasedLink(Link):
    """A link that is lent to one thread or task. It goes back to its pool when nothing refers to it any more.

    So a cursor that is still being read keeps its link, even if the request or the transaction has ended.
    """

    __slots__ = ("_pool",)

    def __init__(self, pool: LinkPool, server: Server, kept: Kept) -> None:
        self._pool: LinkPool | None = pool
        self.server = server
        self.raw, self.writes, self.readable, self.opened_at, self.process, self.identity = kept
        pool.lent[id(self.raw)] = self.raw

    def discard(self) -> None:
        """Close the connection instead of giving it back."""
        if self._pool is not None:
            self._pool.lent.pop(id(self.raw), None)
            self._pool = None
        close_raw(self.raw, self.process)

    def __del__(self) -> None:
        if self._pool is not None:
            self._pool.give_back(self)


# An idle link, as a tuple of the attributes of `Link`.
Kept = tuple[Any, Any, Any, float, int, Any]


class LinkPool:
    """The links to one server. It lends as many links as are asked for, and keeps at most ``size`` idle ones.

    Taking from a list and adding to it are atomic, so there is no lock that a fork could leave locked.

    Args:
        driver: opens the links.
        settings: the settings of the server, as the driver takes them.
        read_only: whether the database refuses writes through these links.
        size: how many idle links are kept.

    Attributes:
        lent: the connections of the lent links, by their ids. A link may be garbage-collected together with what uses
            it. Without this reference, its connection would be collected too, and some drivers close it then.
    """

    def __init__(self, driver: Driver, settings: dict[str, Any], *, read_only: bool, size: int) -> None:
        self.driver = driver
        self.settings = settings
        self._read_only = read_only
        self._size = size
        self._idle: list[Kept] = []
        self.lent: dict[int, Raw] = {}
        self._closed = False
        self._dropped_at = 0.0

    def take(self, server: Server) -> LeasedLink:
        """Lend a link that is alive: an idle one, or a new one. Drop idle links that the server has closed.

        Raises:
            Exception: the driver's own error, when a new link cannot be opened.
        """
        while self._idle:
            try:
                kept = self._idle.pop()
            except IndexError:
                break  # another thread was faster
            raw, _, readable, _, process, _ = kept
            if process == getpid() and not readable(0):
                return LeasedLink(self, server, kept)
            close_raw(raw, process)
        made = Link(server, self.driver.open(self.settings, read_only=self._read_only), self.driver)
        kept = (made.raw, made.writes, made.readable, made.opened_at, made.process, made.identity)
        return LeasedLink(self, server, kept)

    def give_back(self, link: Link) -> None:
        """Keep a link for its next user. Close it if its session cannot be reset, or if the pool is full."""
        self.lent.pop(id(link.raw), None)
        if (
            self._closed
            or link.opened_at < self._dropped_at
            or len(self._idle) >= self._size
            or not link.is_own
            or not self.driver.reusable(link.raw)
        ):
            close_raw(link.raw, link.process)
        else:
            self._idle.append((link.raw, link.writes, link.readable, link.opened_at, link.process, link.identity))
            if self._closed:  # another thread has closed the pool meanwhile
                self.drop_idle()

    def drop_idle(self) -> None:
        """Close the idle links now, and the lent links when they are given back."""
        self._dropped_at = monotonic()
        idle, self._idle = self._idle, []
        while idle:
            with suppress(IndexError):  # another thread has taken the last one
                raw, *_, process, _ = idle.pop()
                close_raw(raw, process)

    def close(self) -> None:
        """Close the idle links now, and each lent link when nothing refers to it any more."""
        self._closed = True
        self.drop_idle()


def close_raw(raw: Raw, process: int) -> None:
    """Close a connection, which may be lost already. In a forked child, keep the parent's connections open (S12)."""
    if process != getpid():
        keep_open(raw)
        return
    with suppress(Exception):  # drivers raise various errors when a broken connection is closed
        raw.close()
