"""What a pair of another database has to bring: the methods that ReplicatedPair calls and does not have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class PairHooks(ABC):
    """The part of a pair that its database decides.

    Names of servers have been checked before one of these is called, and no two of them run at the same time,
    but for ``_wait_for``.
    """

    @abstractmethod
    def _parameters(self, name: str) -> dict[str, Any]:
        """Return the connection parameters of a server."""

    @abstractmethod
    def _create(self) -> None:
        """Make what the servers need; none of them runs yet."""

    @abstractmethod
    def _remove(self) -> None:
        """End the servers and remove what they left, however much of it there is."""

    @abstractmethod
    def _is_up(self, name: str) -> bool:
        """Tell whether the server runs."""

    @abstractmethod
    def _start_server(self, name: str) -> None:
        """Start a server and wait until it answers. On a slave, replication may or may not run after it."""

    @abstractmethod
    def _kill_server(self, name: str) -> None:
        """Kill a server that runs."""

    @abstractmethod
    def _set_lag(self, name: str) -> None:
        """Give a slave the lag, and let it replicate afterwards unless it is stopped."""

    @abstractmethod
    def _stop_replication(self, name: str) -> None:
        """Stop replication on a slave that runs."""

    @abstractmethod
    def _start_replication(self, name: str) -> None:
        """Start replication on a slave that runs; no error if it runs already."""

    @abstractmethod
    def _master_position(self) -> Any:
        """Return how far the master is."""

    @abstractmethod
    def _wait_for(self, name: str, position: Any, deadline: float) -> None:
        """Wait until a slave has reached a position of the master, or raise NotCaughtUpError."""
