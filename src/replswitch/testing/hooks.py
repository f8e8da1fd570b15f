"""The methods that a pair for another database must implement. ReplicatedPair calls them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class PairHooks(ABC):
    """The methods of a pair that depend on its database.

    The names of servers are checked before the call. No two of these methods run at the same time, except
    ``_wait_for`` and ``_wait_settled``.
    """

    @abstractmethod
    def _parameters(self, name: str) -> dict[str, Any]:
        """Return the connection parameters of a server."""

    @abstractmethod
    def _create(self) -> None:
        """Create the files that the servers need. No server runs yet."""

    @abstractmethod
    def _remove(self) -> None:
        """End the servers and remove their files. Some of them may be missing."""

    @abstractmethod
    def _is_up(self, name: str) -> bool:
        """Return whether the server runs."""

    @abstractmethod
    def _start_server(self, name: str) -> None:
        """Start a server and wait until it answers. On a slave, replication may or may not run afterwards."""

    @abstractmethod
    def _kill_server(self, name: str) -> None:
        """Kill a server that runs."""

    @abstractmethod
    def _set_lag(self, name: str) -> None:
        """Set the lag of a slave. Afterwards it replicates, unless its replication is stopped."""

    @abstractmethod
    def _stop_replication(self, name: str) -> None:
        """Stop replication on a slave that runs."""

    @abstractmethod
    def _start_replication(self, name: str) -> None:
        """Start replication on a slave that runs; no error if it runs already."""

    @abstractmethod
    def _master_position(self) -> Any:
        """Return the position of the master."""

    @abstractmethod
    def _wait_for(self, name: str, position: Any, deadline: float) -> None:
        """Wait until a slave has reached a position of the master, or raise NotCaughtUpError."""

    @abstractmethod
    def _wait_settled(self, name: str) -> None:
        """Wait until a slave that has caught up is connected and reports a lag of 0, or raise PairError."""
