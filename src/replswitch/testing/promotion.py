"""Promotion of a slave to master, as a careful operator does it.

Comments cite pages of MariaDB's manual by their NAME in https://mariadb.com/kb/en/NAME/.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod

from replswitch.testing.errors import PairError
from replswitch.testing.pair import MASTER
from replswitch.testing.processes import ProcessPair

logger = logging.getLogger(__name__)


class PromotablePair(ProcessPair):
    """A pair of servers in which the master can change."""

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self._follows: dict[str, str | None] = {}  # the master that each server last got; None if it is one itself

    def promote(self, name: str = "slave", timeout: float = 10) -> None:
        """Promote a slave to master. The old master and the other slaves then replicate from it. No write is lost.

        First, the old master stops accepting writes. MariaDB and MySQL become read-only, so sessions that are open
        there get error 1290 for every write and for every commit of a write. PostgreSQL is shut down, so its sessions
        end. Then the slave catches up at once, in spite of the lag. Then it accepts writes.
        Afterwards ``pair.master``, ``pair.slaves``, ``pair.master_name`` and ``pair.slave_names`` have the new
        roles. Each server keeps its name and its address. The test must connect the clients to the new master.
        A slave that is down follows the new master when it starts. ``reset()`` makes the first master the master
        again, in the same way.

        Args:
            name: the slave.
            timeout: seconds that the slave may take to catch up.

        Raises:
            ConfigurationError: no slave of this pair has that name.
            PairError: the slave or the master is down.
            NotCaughtUpError: the slave did not catch up in time. The old master is still the master.
        """
        with self._exclusively():
            began, old = time.monotonic(), self.master_name
            for server in (self._known_slave(name), old):
                if not self._is_up(server):
                    raise PairError(f'the {server} is down, so {name} cannot be promoted. Call start("{server}") first')
            self._hand_over(old, name, timeout)
            self._stopped.discard(name)
            self.master_name = name
            for server in self.slave_names:
                if self._is_up(server):
                    self._stop_replication(server)
                    self._follow(server)
                    self._set_lag(server)
            logger.debug("%s is the master after %.2f s", name, time.monotonic() - began)

    def reset(self) -> None:
        """Undo what a test did to the servers, including a promotion."""
        super().reset()
        if self.master_name != MASTER:
            self.promote(MASTER)
            self._wait_restored()

    @abstractmethod
    def _hand_over(self, old: str, new: str, timeout: float) -> None:
        """Close the old master for writes. Once the new one has all writes, open the new one for writes.

        Raises:
            PairError: the new master was not opened for writes; the old master is still the master.
        """

    def _create(self) -> None:
        self._follows.clear()
        super()._create()

    def _start_server(self, name: str) -> None:
        super()._start_server(name)
        self._follow(name)

    def _follow(self, name: str) -> None:
        """Set the master of a server, unless it is set already."""
        if name == self.master_name:
            self._follows[name] = None
        elif self._follows.get(name) != self.master_name:
            self._introduce(name)
            self._follows[name] = self.master_name

    @abstractmethod
    def _introduce(self, name: str) -> None:
        """Set the master of a server that does not replicate yet."""
