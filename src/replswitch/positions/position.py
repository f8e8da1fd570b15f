"""The base class of positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Hashable


class Position(ABC):
    """A place in the master's stream of replication. Never changed; equal ones compare equal.

    Attributes:
        engine: the word for the engine in a written position.
    """

    __slots__ = ()

    engine: ClassVar[str]

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Self:
        """Return the position that the engine's own notation names.

        Raises:
            PositionError: the text is no position.
        """

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Return the earliest position that includes both."""

    @abstractmethod
    def includes(self, other: Position) -> bool:
        """Say whether a server that is here has reached ``other``. A position of another engine never is."""

    @abstractmethod
    def is_written_by(self, identity: Hashable) -> bool:
        """Say whether one server has written all of it itself, and so has it.

        Args:
            identity: the identity of the server, from the driver's ``fetch_position``.
        """

    @abstractmethod
    def __str__(self) -> str:
        """Return it in the engine's own notation, the same for equal positions."""
