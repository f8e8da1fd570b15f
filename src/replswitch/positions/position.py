"""The base class of positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Hashable


class Position(ABC):
    """A place in the master's replication stream. It is immutable, and equal positions compare equal.

    Attributes:
        engine: the name of the database product, with which the text of a position begins.
    """

    __slots__ = ()

    engine: ClassVar[str]

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a text in the notation of the database.

        Raises:
            PositionError: the text is not a position.
        """

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Return the earliest position that includes this one and the ``other``."""

    def merge_earlier(self, earlier: Self) -> Self:
        """Return the position that a visitor must see after a write at ``earlier`` and then one at this position.

        A subclass overrides this if a server that has this write certainly has every earlier write that was not lost.
        """
        return self.merge(earlier)

    @abstractmethod
    def includes(self, other: Position) -> bool:
        """Return whether a server at this position has reached ``other``; False for a position of another product."""

    @abstractmethod
    def is_written_by(self, identity: Hashable) -> bool:
        """Return whether a server has made all writes of this position itself, so that it certainly has them.

        Args:
            identity: the identity of the server, from the driver's ``fetch_position``.
        """

    @abstractmethod
    def __str__(self) -> str:
        """Return the position in the notation of the database. Equal positions have the same text."""
