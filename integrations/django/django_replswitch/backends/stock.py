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

        def create_cursor(self, name: str | None = None) -> Any:
            """Return a cursor."""

        def _prepare_cursor(self, cursor: Any) -> Any: ...
        def _close(self) -> None: ...
        def _commit(self) -> None: ...
        def _rollback(self) -> None: ...
        def _set_autocommit(self, autocommit: bool) -> None: ...
        def _start_transaction_under_autocommit(self) -> None: ...
        def _savepoint(self, sid: str) -> None: ...
        def _savepoint_rollback(self, sid: str) -> None: ...
        def _savepoint_commit(self, sid: str) -> None: ...

else:
    StockWrapper = BaseDatabaseWrapper
