"""Django's own wrapper, with the methods of its backends that the type stubs leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:

    class StockWrapper(BaseDatabaseWrapper):
        """What a mixin in front of a backend finds behind it."""

        Database: Any
        health_check_enabled: bool
        health_check_done: bool
        rollback_exc: Any

        def create_cursor(self, name: str | None = None) -> Any:
            """Return a cursor."""

        def _cursor(self, name: str | None = None) -> Any: ...
        def _prepare_cursor(self, cursor: Any) -> Any: ...
        def _set_autocommit(self, autocommit: bool) -> None: ...

else:
    StockWrapper = BaseDatabaseWrapper
