"""The responses of the applications of `chaos` and `processes`, and their switch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Switchable(Protocol):
    """A database with a master and slaves."""

    def use_master(self) -> AbstractContextManager[Any]:
        """Switch to the master."""

    def use_slave(self) -> AbstractContextManager[Any]:
        """Switch to a slave."""


@dataclass
class Answer:
    """The response of a page."""

    status: int
    told: dict[str, Any] = field(default_factory=dict)
    location: str = ""

    @property
    def body(self) -> bytes:
        """The body: JSON."""
        return json.dumps(self.told).encode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers."""
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(self.body)))]
        return [*headers, ("Location", self.location)] if self.location else headers
