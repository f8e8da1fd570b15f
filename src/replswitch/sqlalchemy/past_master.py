"""Pooled connections to who was the master once serve nobody who must see what another server has written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError

from replswitch.sqlalchemy.servers import FRESH, IDENTITY
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Hashable

    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from replswitch.drivers import Driver, Raw
    from replswitch.slaves import Slaves


class PastMasters:
    """Replaces connections of the master's pool that a failover has left open.

    Args:
        slaves: those of the database, which know what is to be seen.
        driver: of the master.
    """

    def __init__(self, slaves: Slaves, driver: Driver) -> None:
        self._slaves = slaves
        self._driver = driver

    def listen(self, engine: Engine) -> None:
        """Look at each connection that the pool lends from now on."""
        event.listen(engine, "checkout", self._look)

    def _look(self, raw: Raw, entry: ConnectionPoolEntry, _: Any) -> None:
        frame = stack()
        if entry.info.pop(FRESH, False) or frame is None or not frame.scope.must_see:
            return  # one that was opened just now leads to whoever has the name
        try:
            is_past = self._slaves.master_lacks(frame.scope, _Link(raw, entry), self._driver)
        except self._driver.module.Error as error:
            if not self._driver.unreachable(error):
                raise
            is_past = True
        if is_past:  # what else is idle leads there as well
            raise InvalidatePoolError("The connection leads to a server that was the master once.")


class _Link:
    """See `replswitch.progress.LinkToSlave`."""

    server = None
    opened_at = 0.0

    def __init__(self, raw: Raw, entry: ConnectionPoolEntry) -> None:
        self.raw = raw
        self._info = entry.info

    @property
    def identity(self) -> Hashable | None:
        return self._info.get(IDENTITY)

    @identity.setter
    def identity(self, identity: Hashable | None) -> None:
        self._info[IDENTITY] = identity
