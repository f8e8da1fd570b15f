"""The cursor between Django's and the driver's: the side is chosen at ``execute``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_replswitch.backends.links import Link


class SwitchingCursor:
    """Runs each statement on the link that the state asks for, and fetches from there.

    Args:
        wrapper: Django's connection, a `wrapper.SwitchingWrapper`.
        name: handed on to the backend's own ``create_cursor``.
    """

    def __init__(self, wrapper: Any, name: str | None) -> None:
        self._wrapper = wrapper
        self._name = name
        self._link: Link | None = None
        self._cursor: Any = None
        self._closed = False

    def execute(self, sql: str, params: Any = None) -> Any:
        """Run a statement."""
        return self._run("execute", sql, params)

    def executemany(self, sql: str, params: Any) -> Any:
        """Run a statement once for each of ``params``."""
        return self._run("executemany", sql, params)

    def callproc(self, name: str, *params: Any) -> Any:
        """Call a stored procedure."""
        return self._run("callproc", name, *params)

    def _run(self, method: str, *args: Any) -> Any:
        wrapper = self._wrapper
        if self._closed:
            raise wrapper.Database.ProgrammingError("The cursor is closed.")
        link = wrapper.link_for_statement()
        is_write = False
        while True:
            try:
                result = getattr(self._on(link), method)(*args)
            except wrapper.Database.Error as error:
                wrapper.look_for_writes(link)
                following = wrapper.link_after_failure(link, error)
                if following is None or following is link:
                    raise
                is_write = link.server.state != following.server.state and wrapper.is_refused_write(error)
                link = following
            else:
                break
        has_rows = self._cursor.description is not None
        wrapper.look_for_writes(link, has_rows=has_rows and not is_write)
        if has_rows:
            wrapper.note_read(link)
        return result

    def _on(self, link: Link) -> Any:
        if self._link is not link:
            self._let_go()
            self._link, self._cursor = link, self._wrapper.create_link_cursor(self._name)
        return self._cursor

    def close(self) -> None:
        """Let the result go; nothing can be run any more."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        cursor, link, self._cursor, self._link = self._cursor, self._link, None, None
        if cursor is not None:
            with suppress(self._wrapper.Database.Error):  # of a link that is lost
                cursor.close()
        if link is not None:
            self._wrapper.look_for_late_writes(link)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bound)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound, name)

    @property
    def _bound(self) -> Any:
        # Before the first statement a cursor of the side that is wanted now answers, as Django's own would.
        if self._cursor is None:
            self._on(self._wrapper.link_for_statement())
        return self._cursor
