"""How far the slaves of one database are known to have come (P2)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.drivers import Raw
    from replswitch.positions import Position


class LinkToSlave(Protocol):
    """A link to a slave, of any binding.

    Attributes:
        server: the slave as the binding knows it.
        raw: the driver's connection.
        opened_at: when it was opened, by `time.monotonic`.
        identity: which server it leads to, as the server itself says; None before it was asked. A name is not enough:
            it may be a load balancer's.
    """

    server: Any
    raw: Raw
    opened_at: float
    identity: Hashable | None


class Progress:
    """What the links of one process were told. A server that is known to have reached a position is not asked again.

    A lower answer replaces what was known: the server was set back, from a backup perhaps.
    """

    def __init__(self) -> None:
        self._reached: dict[Hashable, Position] = {}
        self._lock = threading.Lock()

    def has_reached(self, link: LinkToSlave, position: Position) -> bool:
        """Say whether the server that a link leads to is known to have reached a position."""
        reached = None if link.identity is None else self._reached.get(link.identity)
        return reached is not None and reached.includes(position)

    def learn(self, link: LinkToSlave, identity: Hashable, position: Position | None) -> None:
        """Keep what a server has answered through a link."""
        with self._lock:
            if position is None:
                self._reached.pop(identity, None)
            else:
                self._reached[identity] = position
        link.identity = identity
