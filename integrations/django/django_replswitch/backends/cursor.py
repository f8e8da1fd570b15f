"""The cursor between Django's and the driver's, which chooses the link at ``execute``, and the log of queries."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from replswitch import MASTER, SLAVE
from replswitch.connect.cursor import materialize
from replswitch.engine.attempt import Attempt
from replswitch.telemetry.running import watching
from replswitch.watching import CursorProbe, add_probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_replswitch.backends.link import WrapperLink


class SwitchingCursor:
    """Runs each statement on the link that the state asks for, and fetches from this link.

    Args:
        wrapper: Django's connection, a `wrapper.SwitchingWrapper`.
    """

    # Slots are faster than attributes with a default in the class. The dictionary holds what callers set.
    __slots__ = ("__dict__", "_closed", "_link", "_name", "_raw", "_wrapper")

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self._link: WrapperLink | None = None  # None until a statement has run
        self._raw: Any = None  # the driver's cursor on the link
        self._closed = False
        self._name = ""  # the name of a server-side cursor

    def execute(self, sql: str, params: Any = None) -> Any:
        """Run a statement."""
        # This repeats what `_run` does when the statement succeeds, because a call of it would slow down every query.
        wrapper = self._wrapper
        if self._closed:
            raise wrapper.closed_cursor_error("The cursor is closed.")
        link = wrapper.route.for_statement()
        if link is not wrapper.selected:
            link = wrapper.use(link)
        try:
            if self._raw is None:
                if link.writes.unread:
                    wrapper.route.drain(link)
                self._link, self._raw = link, link.cursor()
                raw = self._raw
                # Use the driver's methods directly, which saves a call for each fetch.
                self.fetchone, self.fetchmany, self.fetchall = raw.fetchone, raw.fetchmany, raw.fetchall
            else:
                raw = self._on(link)
            if watching.on:
                result = watching.around(raw.execute, wrapper.route.tally, wrapper.driver)(sql, params)
            else:
                result = raw.execute(sql, params)
        except wrapper.Database.Error as error:
            attempt = Attempt()
            following = wrapper.route.failed(attempt, link, error)
            if following is None:
                wrapper.raise_as_stock(error)
                raise
            return self._run("execute", (sql, params), following, attempt)
        route, news, driver = wrapper.route, link.writes.news, wrapper.driver
        route.tally.add()
        if driver.must_ask and raw.description is not None:  # the driver does not report writes of such statements
            pending = route.pending
            will_ask = pending is not None and not pending.resolved
            news = link.server.state == MASTER and not will_ask
        if news or route.block is not None:
            route.succeeded(link, has_rows=driver.returned_rows(raw), follow=wrapper.autocommit)
        elif link.server.state == SLAVE:
            route.has_read = True
        return result

    def executemany(self, sql: str, params: Any) -> Any:
        """Run a statement once for each of ``params``."""
        return self._run("executemany", (sql, materialize(params)))

    def callproc(self, name: str, *params: Any) -> Any:
        """Call a stored procedure."""
        return self._run("callproc", (name, *params))

    def _run(self, method: str, args: Any, link: Any = None, attempt: Attempt | None = None, **options: Any) -> Any:
        wrapper, attempt = self._wrapper, attempt or Attempt(single=False)
        if self._closed:
            raise wrapper.closed_cursor_error("The cursor is closed.")
        link = link or wrapper.use(wrapper.route.for_statement())
        while True:
            wrapper.select(link)
            try:
                raw = self._on(link)
                run = getattr(raw, method)
                if watching.on:
                    run = watching.around(run, wrapper.route.tally, wrapper.driver)
                result = run(*args, **options)
            except wrapper.Database.Error as error:
                link = wrapper.route.failed(attempt, link, error)
                if link is None:
                    if method != "callproc":
                        wrapper.raise_as_stock(error)
                    raise
            else:
                wrapper.route.tally.add()
                has_rows = wrapper.driver.returned_rows(raw)
                wrapper.route.succeeded(link, has_rows=has_rows, follow=wrapper.autocommit)
                return result

    def nextset(self) -> Any:
        """Move to the next result set of a procedure."""
        return self._wrapper.route.next_results(self._link, self._bound)

    def _on(self, link: WrapperLink) -> Any:
        """Return the driver's cursor on a link. First read the unread results of the previous statement."""
        wrapper = self._wrapper
        if link.writes.unread:
            wrapper.route.drain(link)
        if link is not self._link:
            try:
                self.close()
            finally:
                vars(self).clear()  # back to the state of a new cursor
                self._raw, self._closed = None, False
            self._link, self._raw = link, self._open(link)
        return self._raw

    def _open(self, link: WrapperLink) -> Any:
        return link.cursor()

    def close(self) -> None:
        """Close the cursor and release its result. `rowcount`, `lastrowid` and `description` keep their values."""
        self._closed = True
        link, self._link = self._link, None
        if link is None:
            return
        if not self._wrapper.driver.keeps_description:
            self.description = self._raw.description
        try:
            self._raw.close()
        except self._wrapper.Database.Error as error:
            if not self._wrapper.route.failed_late(link, error):
                raise
        if link.writes.news and link.server.state == MASTER:
            # A driver that fetches row by row learns only after the last row what the statement has written.
            self._wrapper.route.rows_ended(link)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bound)

    def __getattr__(self, name: str) -> Any:
        if self._raw is None and name.startswith("_"):  # Django's log reads the statement, even if none has run
            raise AttributeError(name)
        return getattr(self._raw or self._bound, name)

    @property
    def _bound(self) -> Any:
        # Before the first statement, use a driver's cursor on the side that the state asks for now.
        return self._raw or self._on(self._wrapper.route.for_statement())


class QueriesLog(deque[dict[str, Any]]):
    """The log of the queries of one connection.

    Args:
        wrapper: Django's connection, a `wrapper.SwitchingWrapper`.
    """

    def __init__(self, wrapper: Any) -> None:
        super().__init__(maxlen=wrapper.queries_limit)
        self._wrapper = weakref.proxy(wrapper)  # weak, because the wrapper refers to the log

    def append(self, query: dict[str, Any]) -> None:
        """Add a query that has just run."""
        super().append(LoggedQuery(query, self._wrapper.served_by()))


class LoggedQuery(dict[str, Any]):
    """A query in Django's log, with Django's keys ``sql`` and ``time``. The keys ``db`` and ``server`` also work.

    Iteration shows Django's own keys only, because Django documents exactly these and its tests check them.
    """

    def __init__(self, query: dict[str, Any], served_by: dict[str, str]) -> None:
        super().__init__(query)
        self.served_by = served_by

    def __missing__(self, key: str) -> Any:
        return self.served_by[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value for ``key``, which may be ``db`` or ``server``; ``default`` for an unknown key."""
        return super().get(key, self.served_by.get(key, default))


def report_statements(cursors: type[SwitchingCursor], *methods: str) -> None:
    """Report the statements that run through these methods, while `replswitch.watching.watch` has an observer."""
    add_probe(CursorProbe(cursors, methods, lambda cursor: (cursor._wrapper.route, cursor._link)))


report_statements(SwitchingCursor, "execute", "executemany", "callproc")
