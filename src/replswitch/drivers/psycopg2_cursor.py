"""Cursors of psycopg2 whose connection records what their statements have written."""

from __future__ import annotations

from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions


class TrackingCursor(psycopg2.extensions.cursor):
    """A cursor that records what its statements have written."""

    if TYPE_CHECKING:
        connection: Any

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's own name
        """Run a statement, and record what it has committed."""
        what = self.connection.before(query)
        if self.name is not None:
            self._declare(query, vars)
            return
        try:
            super().execute(query, vars)
        except psycopg2.Error:
            self.connection.after_error(what)
            raise
        except BaseException:  # from the handler of a signal, such as a time limit
            self.connection.note_cancellation(what)
            raise
        self.connection.after(self.statusmessage, has_commit=what.has_commit)

    def _declare(self, query: Any, values: Any) -> None:
        """Declare a server-side cursor. psycopg2 itself declares one only in a transaction that psycopg2 has begun."""
        name = psycopg2.extensions.quote_ident(str(self.name), self.connection)
        scroll = {None: "", True: "SCROLL ", False: "NO SCROLL "}[self.scrollable]
        hold = "WITH" if self.withhold else "WITHOUT"
        sql = self.mogrify(query, values).decode(psycopg2.extensions.encodings[self.connection.encoding])
        with closing(psycopg2.extensions.cursor(self.connection)) as plain:
            plain.execute(f"DECLARE {name} {scroll}CURSOR {hold} HOLD FOR {sql}")
            self.declared = plain.query
        self.connection.after("SELECT")

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Run a statement several times."""
        self.connection.before(query)
        try:
            super().executemany(query, vars_list)
        finally:  # outside a transaction, it may have written rows before an error
            self.connection.after("")

    def callproc(self, *args: Any) -> Any:
        """Call a function."""
        self.connection.before("")
        found = super().callproc(*args)
        self.connection.after(self.statusmessage)
        return found

    def copy_expert(self, sql: Any, *args: Any, **options: Any) -> None:
        """Copy rows from or to the server."""
        self.connection.before(sql)
        super().copy_expert(sql, *args, **options)
        self.connection.after("")

    def copy_from(self, *args: Any, **options: Any) -> None:
        """Copy rows to the server."""
        self.connection.before("")
        super().copy_from(*args, **options)
        self.connection.after("")

    def copy_to(self, *args: Any, **options: Any) -> None:
        """Copy rows from the server."""
        self.connection.before("")
        super().copy_to(*args, **options)
        self.connection.after("")


@cache
def tracking(cursor_class: type) -> Any:
    """Return a subclass of the application's cursor class that records what its statements have written."""
    if issubclass(cursor_class, TrackingCursor):
        return cursor_class
    if cursor_class is psycopg2.extensions.cursor:
        return TrackingCursor
    return type(f"Tracking{cursor_class.__name__}", (cursor_class, TrackingCursor), {})
