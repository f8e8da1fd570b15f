"""The switch of Django's default connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connection

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class DjangoSwitch:
    """See `shared.answer.Switchable`."""

    def use_master(self) -> AbstractContextManager[Any]:
        """Switch to the master."""
        used: AbstractContextManager[Any] = connection.use_master()  # type: ignore[attr-defined]  # our backend's
        return used

    def use_slave(self) -> AbstractContextManager[Any]:
        """Switch to a slave."""
        used: AbstractContextManager[Any] = connection.use_slave()  # type: ignore[attr-defined]  # our backend's
        return used
