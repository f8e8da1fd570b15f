"""Cursors of PostgreSQL: server-side cursors, and COPY."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.backends.postgresql import base as django_base

from django_replswitch.backends.cursor import SwitchingCursor, report_statements
from replswitch.engine.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_replswitch.backends.link import WrapperLink
    from replswitch.drivers import Raw

base: Any = django_base  # Any, because the type stubs leave out names that are used here


class PostgreSQLCursor(SwitchingCursor):
    """A cursor that can copy rows from and to the server."""

    @property
    def closed(self) -> bool:
        """Whether the cursor is closed."""
        return self._closed

    @property
    def _query(self) -> Any:
        """The statement that Django shows in its log of queries with psycopg 3."""
        return getattr(self._raw, "_query", None)

    @property
    def query(self) -> Any:
        """The statement that Django shows in its log of queries with psycopg2."""
        return getattr(self._raw, "declared", None) or getattr(self._raw, "query", None)

    def close(self) -> None:
        """Close the cursor. `rowcount` keeps its value, which psycopg would reset."""
        if self._link is not None:
            self.rowcount = self._raw.rowcount
        super().close()

    @contextmanager
    def copy(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Run COPY with psycopg 3. If a slave refuses COPY, no row was copied yet, so run it on the master (S8)."""
        begun = self._run("begin_copy", args, attempt=Attempt(), **options)
        link = self._link
        with begun:
            yield begun.copy
        self._wrapper.route.succeeded(link, has_rows=True, follow=self._wrapper.autocommit)

    def copy_expert(self, *args: Any) -> Any:
        """Copy rows with psycopg2."""
        return self._run("copy_expert", args)

    def copy_from(self, *args: Any) -> Any:
        """Copy rows to the server with psycopg2."""
        return self._run("copy_from", args)

    def copy_to(self, *args: Any) -> Any:
        """Copy rows from the server with psycopg2."""
        return self._run("copy_to", args)


class NamedCursor(PostgreSQLCursor):
    """A server-side cursor, for ``iterator()``. Its rows arrive while they are fetched.

    Args:
        wrapper: Django's connection.
        name: the name of the cursor.
    """

    def __init__(self, wrapper: Any, name: str) -> None:
        super().__init__(wrapper)
        self._name = name

    def execute(self, sql: str, params: Any = None) -> Any:
        """Declare the cursor."""
        return self._run("execute", (sql, params), attempt=Attempt())

    def fetchone(self) -> Any:
        """Fetch a row."""
        return self._fetch("fetchone")

    def fetchmany(self, *size: int) -> Any:
        """Fetch some rows."""
        return self._fetch("fetchmany", *size)

    def fetchall(self) -> Any:
        """Fetch the rows that are left."""
        return self._fetch("fetchall")

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def _fetch(self, method: str, *args: Any) -> Any:
        # The statement runs while its rows are fetched, so a slave may refuse it only now.
        return self._wrapper.route.read_on(self._link, getattr(self._bound, method), *args)

    def _open(self, link: WrapperLink) -> Any:
        return named_cursor_on(self._wrapper, link.raw, self._name)


report_statements(NamedCursor, "execute")


if base.is_psycopg3:
    from replswitch.drivers.psycopg_cursor import tracked
    from replswitch.drivers.psycopg_server_cursor import tracked_by_server

    def cursor_maker(wrapper: Any, raw: Raw) -> Callable[[], Any]:
        """Return the function that makes cursors of the driver on a connection, as Django's backend makes them."""
        kind: Any = tracked(raw.cursor_factory)
        return partial(_cursor_on, wrapper, raw, partial(kind, raw))

    def _cursor_on(wrapper: Any, raw: Raw, make: Callable[[], Any]) -> Any:
        cursor = make()
        # Do as Django does, because the settings may have changed since the connection was opened.
        loader = raw.adapters.get_loader(base.TIMESTAMPTZ_OID, base.Format.TEXT)
        if wrapper.timezone != loader.timezone:
            base.register_tzloader(wrapper.timezone, cursor)
        return cursor

    def named_cursor_on(wrapper: Any, raw: Raw, name: str) -> Any:
        """Return a server-side cursor of the driver. Outside a transaction, it is declared WITH HOLD."""
        binds = wrapper.settings_dict["OPTIONS"].get("server_side_binding") is True
        kind = tracked_by_server(raw.server_cursor_factory if binds else base.ServerSideCursor)
        cursor = kind(raw, name=name, scrollable=False, withhold=not wrapper.driver.in_transaction(raw))
        base.register_tzloader(wrapper.timezone, cursor)
        return cursor

else:

    def cursor_maker(wrapper: Any, raw: Raw) -> Callable[[], Any]:
        """Return the function that makes cursors of the driver on a connection, as Django's backend makes them."""
        return partial(_cursor_on, wrapper, raw, raw.cursor)

    def _cursor_on(wrapper: Any, raw: Raw, make: Callable[[], Any]) -> Any:
        return _with_timezone(wrapper, make())

    def named_cursor_on(wrapper: Any, raw: Raw, name: str) -> Any:
        """Return a server-side cursor of the driver. Outside a transaction, it is declared WITH HOLD."""
        held = not wrapper.driver.in_transaction(raw)
        return _with_timezone(wrapper, raw.cursor(name, scrollable=False, withhold=held))

    def _with_timezone(wrapper: Any, cursor: Any) -> Any:
        cursor.tzinfo_factory = wrapper.tzinfo_factory if settings.USE_TZ else None
        return cursor
