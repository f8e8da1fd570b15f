"""Server-side cursors of psycopg 3 whose connection records what they write."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from replswitch.drivers.written import Written

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def tracked_by_server(kind: type[Any]) -> type[Any]:
    """Return a subclass of ``kind``, a class of server-side cursors, whose statements are recorded."""
    mixins = (_ReadsFirst, _ServerSide) if issubclass(kind, psycopg.client_cursor.ClientCursorMixin) else (_ServerSide,)
    return type(kind.__name__, (*mixins, kind), {"__module__": __name__})


class _ServerSide:
    """A mixin for server-side cursors that records what they write.

    Outside a transaction (WITH HOLD), the query runs when DECLARE is committed, and may write then.
    """

    lastrowid = None
    status = Written.ASK

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Declare the cursor, and record that its statement may have written."""
        connection: Any = self.connection  # type: ignore[attr-defined]  # of psycopg's cursor
        connection.before(query)
        if connection.is_guarded:
            with connection.streaming(self):
                super().execute(query, params, **options)  # type: ignore[misc]  # likewise
        else:
            self.declare(super().execute, query, params, **options)  # type: ignore[misc]  # likewise
            connection.after(self, self.status)
        return self

    def declare(self, execute: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Declare the cursor."""
        execute(*args, **options)

    def _close(self) -> None:
        # As with `replswitch.drivers.psycopg_cursor.TrackingCursor`, the latest result stays for its description.
        self._closed = True


class _ReadsFirst(_ServerSide):
    """A server-side cursor that merges parameters on the client, so that one message can hold several statements.

    Outside a transaction, the query of a cursor WITH HOLD runs when DECLARE is committed. replswitch cannot see
    whether the query has written, so the cursor is first declared in a read-only transaction. If the server refuses a
    write there, the cursor is declared again outside such a transaction, and the position is queried later.
    """

    _reads_only = False

    def declare(self, execute: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Declare the cursor. Outside a transaction, first try it in a read-only transaction."""
        connection: Any = self.connection  # type: ignore[attr-defined]  # likewise
        if not connection.reports_positions or connection.in_transaction:
            execute(*args, **options)
            return
        self._reads_only, self.status = True, Written.NO
        try:
            execute(*args, **options)
        except psycopg.errors.ReadOnlySqlTransaction:
            connection.rollback()
            self._reads_only, self.status = False, Written.ASK
            execute(*args, **options)
        except psycopg.Error:
            if not connection.closed:
                connection.rollback()
            raise
        finally:
            self._reads_only = False

    def _make_declare_statement(self, query: Any) -> Any:
        statement = super()._make_declare_statement(query)  # type: ignore[misc]  # likewise
        if self._reads_only:
            statement = sql.SQL("BEGIN READ ONLY; ") + statement + sql.SQL("\n; COMMIT")
        return statement

    def _execute_send(self, query: Any, *, force_extended: bool = False, binary: bool | None = None) -> None:
        super()._execute_send(query, force_extended=force_extended and not self._reads_only, binary=binary)  # type: ignore[misc]  # the base class is mixed in
