"""The cursor between Django's and the driver's: the link is chosen at ``execute``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from replswitch import MASTER, SLAVE
from replswitch.connect.cursor import materialize
from replswitch.engine.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_replswitch.backends.links import WrapperLink

# What is taken from the driver's cursor, so that it costs no further call.
_OF_RAW: Final = ("description", "fetchone", "fetchmany", "fetchall")


class SwitchingCursor:
    """Runs each statement on the link that the state asks for, and fetches from there.

    Args:
        wrapper: Django's connection, a `wrapper.SwitchingWrapper`.
    """

    # Until a statement has run.
    _link: WrapperLink | None = None
    _raw: Any = None  # the cursor on it
    _closed = False

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper

    def execute(self, sql: str, params: Any = None) -> Any:
        """Run a statement."""
        # Written out, as every query takes this way: what `_run` does when all goes well.
        wrapper = self._wrapper
        if self._closed:
            raise wrapper.Database.ProgrammingError("The cursor is closed.")
        if wrapper.closed_in_transaction:
            wrapper.leave_closed_block()
        link = wrapper.route.for_statement()
        if link is not wrapper.selected:
            wrapper.select_again(link)
        try:
            if self._raw is None:
                self._link, self._raw = link, link.cursor()
                raw = self._raw
                self.fetchone, self.fetchmany, self.fetchall = raw.fetchone, raw.fetchmany, raw.fetchall
            else:
                raw = self._on(link)
            result = raw.execute(sql, params)
        except wrapper.Database.Error as error:
            attempt = Attempt()
            following = wrapper.link_after_failure(attempt, link, error)
            if following is None:
                wrapper.raise_as_stock(error)
                raise
            return self._run("execute", (sql, params), following, attempt)
        route, news, has_rows = wrapper.route, link.writes.news, raw.description is not None
        if wrapper.driver.must_ask and has_rows and link.server.state == SLAVE:
            news = False  # of such a driver only statements without rows are looked at
        if news or route.block is not None:
            wrapper.succeeded(link, has_rows=has_rows)
        elif link.server.state == SLAVE:
            route.has_read = True
        return result

    def executemany(self, sql: str, params: Any) -> Any:
        """Run a statement once for each of ``params``."""
        return self._run("executemany", (sql, materialize(params)), self._wrapper.link_for_statement())

    def callproc(self, name: str, *params: Any) -> Any:
        """Call a stored procedure."""
        return self._run("callproc", (name, *params), self._wrapper.link_for_statement())

    def _run(self, method: str, args: tuple[Any, ...], link: WrapperLink, attempt: Attempt | None = None) -> Any:
        wrapper = self._wrapper
        if self._closed:
            raise wrapper.Database.ProgrammingError("The cursor is closed.")
        while True:
            try:
                raw = self._on(link)
                result = getattr(raw, method)(*args)
            except wrapper.Database.Error as error:
                attempt = attempt or Attempt(single=False)
                following = wrapper.link_after_failure(attempt, link, error)
                if following is None:
                    if method != "callproc":
                        wrapper.raise_as_stock(error)
                    raise
                link = following
            else:
                wrapper.succeeded(link, has_rows=raw.description is not None)
                return result

    def nextset(self) -> Any:
        """Go on to the next result set of a procedure."""
        raw, link, wrapper = self._bound, self._link, self._wrapper
        try:
            return raw.nextset()
        except wrapper.Database.Error as error:
            wrapper.route.failed_late(link, error)
            raise
        finally:
            if link is not None and link.server.state == MASTER:
                wrapper.route.look_for_writes(link)

    def _on(self, link: WrapperLink) -> Any:
        """Return the driver's cursor on a link; what the statement before still owes is read."""
        if link is not self._link:
            try:
                self.close()
            finally:
                self._closed = False
                for name in _OF_RAW:
                    vars(self).pop(name, None)
            self._link, self._raw = link, link.cursor()
        elif link.writes.unread:
            self._wrapper.drain(link)
        return self._raw

    def close(self) -> None:
        """Let the result go; nothing can be run any more. `rowcount`, `lastrowid` and `description` stay."""
        self._closed = True
        link, self._link = self._link, None
        if link is None:
            return
        self.description = self._raw.description  # drivers forget it
        try:
            self._raw.close()
        except self._wrapper.Database.Error as error:
            if not self._wrapper.route.failed_late(link, error):
                raise
        if link.writes.news and link.server.state == MASTER:
            # A driver that fetches row by row learns only after the last one what its statement has written.
            self._wrapper.route.rows_ended(link)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bound)

    def __getattr__(self, name: str) -> Any:
        if self._raw is None and name.startswith("_"):  # Django's log asks for the statement, also where none has run
            raise AttributeError(name)
        return getattr(self._raw or self._bound, name)

    @property
    def _bound(self) -> Any:
        # Before the first statement a cursor of the side that is wanted now answers, as Django's own would.
        return self._raw or self._on(self._wrapper.link_for_statement())
