"""A DB-API cursor. ``execute`` chooses a server, and rows are fetched from the link on which the statement ran."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from inspect import isroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.attempt import Attempt
from replswitch.state import stack
from replswitch.telemetry.running import watching
from replswitch.watching import CursorProbe, add_probe

if TYPE_CHECKING:
    from replswitch.connect.local import RouteState
    from replswitch.connect.workers import Workers
    from replswitch.drivers import Driver, Raw
    from replswitch.engine.servers import Link


def materialize(args: Any) -> Any:
    """Return the arguments of ``executemany`` as a sequence, because a statement that runs again needs all of them."""
    return list(args) if isinstance(args, Iterator) else args


class Result(NamedTuple):
    """The attributes of the latest result, which a cursor keeps after it was closed."""

    description: Any
    rowcount: int
    lastrowid: Any


class Cursor:
    """A cursor of PEP 249. After ``execute``, it also has the other attributes of the driver's own cursor.

    Args:
        workers: the states of the threads and tasks of the cursor's connection.
        driver: the driver of the connection.
        arguments: the arguments of the driver's ``cursor()``, such as PyMySQL's cursor class.
        options: the keyword arguments of the driver's ``cursor()``, such as psycopg's ``row_factory``.
    """

    _link: Link | None = None
    _raw: Raw = None
    _closed: Any = Result(None, -1, None)  # what stays after close()
    _arraysize = 1

    def __init__(
        self, workers: Workers, driver: Driver, arguments: tuple[Any, ...], options: dict[str, Any] | None = None
    ) -> None:
        self._workers = workers
        self._driver = driver
        self._arguments = (arguments, options or {}) if arguments or options else ()

    # Run a statement
    def execute(self, sql: str, args: Any = None) -> Any:
        """Run a statement on the master or a slave, and return what the driver's ``execute`` returns."""
        # This repeats what `_run` does if the statement succeeds, because a further call would slow each query down.
        workers = self._workers
        if workers.debug or workers.closed:
            return self._run("execute", sql, args)
        worker = workers.threads.worker if _get_running_loop() is None else None
        state = workers.state() if worker is None or worker.frame is not stack() else worker.current
        if not state.autocommit:
            state.begin_implicitly()
        route = state.route
        link = route.for_statement()
        try:
            if link.writes.unread:
                state.route.drain(link)
            if self._link is link:
                raw = self._raw
            else:
                self._link, self._raw = None, None
                raw = self._bind(link) if self._arguments or self._arraysize != 1 else link.raw.cursor()
                self._link, self._raw = link, raw
            if watching.on:
                execute = watching.around(raw.execute, route.tally, self._driver)
                result = execute(sql) if args is None else execute(sql, args)
            else:
                result = raw.execute(sql) if args is None else raw.execute(sql, args)
        except self._driver.module.Error as error:
            attempt = Attempt()
            following = route.failed(attempt, link, error)
            if following is None:
                raise
            return self._run("execute", sql, args, following, attempt)
        route.tally.add()
        if link.writes.news or route.block is not None:
            route.succeeded(link, has_rows=self._driver.returned_rows(raw), follow=True)
        elif link.server.state == SLAVE:
            route.has_read = True
        return self if result is raw else result

    def executemany(self, sql: str, args: Any) -> Any:
        """Run a statement once for each of ``args``."""
        return self._run("executemany", sql, materialize(args))

    def callproc(self, name: str, args: Any = ()) -> Any:
        """Call a stored procedure."""
        return self._run("callproc", name, args)

    def executescript(self, sql: str) -> Any:
        """Run several statements, if the driver's cursor has this method (sqlite3)."""
        return self._run("executescript", sql, None)

    def mogrify(self, sql: str, args: Any = None) -> Any:
        """Return a statement with its arguments, as the driver would send it. Not every driver can do this."""
        raw = self._raw or self._bind(self._workers.state().route.pick())
        return raw.mogrify(sql, args)

    def _run(
        self,
        method: str,
        sql: str,
        args: Any,
        link: Link | None = None,
        attempt: Attempt | None = None,
        **options: Any,
    ) -> Any:
        """Run a statement. If it fails, run it again on the link that the route returns, if there is one."""
        state = self._workers.state()
        if not state.autocommit:
            state.begin_implicitly()
        attempt = attempt or Attempt(single=method == "execute")
        link = link or state.route.for_statement()
        while True:
            try:
                return self._run_on(state, link, method, sql, args, options)
            except self._driver.module.Error as error:
                following = state.route.failed(attempt, link, error)
                if following is None:
                    raise
                link = following

    def _run_on(self, state: RouteState, link: Link, method: str, sql: str, args: Any, options: dict[str, Any]) -> Any:
        started = perf_counter()
        try:
            if link.writes.unread:
                state.route.drain(link)
            if self._link is not link:
                self._link, self._raw = None, None
                self._link, self._raw = link, self._bind(link)
            raw = self._raw
            run = getattr(raw, method)
            if watching.on:
                run = watching.around(run, state.route.tally, self._driver)
            result = run(sql, **options) if args is None else run(sql, args, **options)
        finally:
            if self._workers.debug:
                self._workers.log(state, link, sql, perf_counter() - started)
        state.route.tally.add()
        state.route.succeeded(link, has_rows=self._driver.returned_rows(raw), follow=True)
        return self if result is raw else result

    def _bind(self, link: Link) -> Raw:
        """Make a cursor of the driver on a link."""
        arguments, options = self._arguments or ((), {})
        raw = link.raw.cursor(*arguments, **options)
        if self._arraysize != 1:
            raw.arraysize = self._arraysize
        return raw

    # Fetch
    def fetchone(self) -> Any:
        """Return the next row; None after the last."""
        row = (self._raw or self._executed).fetchone()
        if row is None:
            self._finished(self._link)
        return row

    def fetchmany(self, size: int | None = None) -> Any:
        """Return up to ``size`` rows, `arraysize` of them by default."""
        size = self.arraysize if size is None else size
        rows = self._executed.fetchmany(size)
        if len(rows) < size:
            self._finished(self._link)
        return rows

    def fetchall(self) -> Any:
        """Return all rows that are left."""
        rows = self._executed.fetchall()
        self._finished(self._link)
        return rows

    def nextset(self) -> Any:
        """Move to the next result set. Return a false value if there is none."""
        raw, link = self._executed, self._link
        if not hasattr(raw, "nextset"):
            return None
        return self._workers.state().route.next_results(link, raw)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""
        for row in self._executed:  # noqa: UP028 - `yield from` would close sqlite3's cursor where a loop ends early
            yield row
        self._finished(self._link)

    def _finished(self, link: Link | None) -> None:
        # A driver that fetches row by row learns only after the last row what the statement has written.
        if link is not None and link.writes.news and link.server.state == MASTER:
            self._workers.state().route.rows_ended(link)

    # Attributes of the result
    @property
    def description(self) -> Any:
        """The columns of the result; None if there is no result."""
        return (self._raw or self._closed).description

    @property
    def rowcount(self) -> int:
        """The number of rows found or changed; -1 before a statement has run."""
        return int((self._raw or self._closed).rowcount)

    @property
    def lastrowid(self) -> Any:
        """The key of the row inserted last; None if there is none."""
        return (self._raw or self._closed).lastrowid

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` returns by default. It is 1 until the application sets it."""
        return self._arraysize

    @arraysize.setter
    def arraysize(self, size: int) -> None:
        self._arraysize = size
        if self._raw is not None:
            self._raw.arraysize = size

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def _copy(self, statement: Any, params: Any = None, **options: Any) -> AbstractContextManager[Any]:
        """Copy rows, like psycopg's ``copy()``. If a slave refuses the statement, run the statement on the master."""

        @contextmanager
        def copying() -> Iterator[Any]:
            begun = self._run("begin_copy", statement, params, **options)
            with self._following(), begun:
                yield begun.copy

        return copying()

    def _stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Yield rows one by one, like psycopg's ``stream()``. If a slave refuses the query, run it on the master."""
        rows = self._run("begin_stream", query, params, **options)
        with self._following():
            yield from rows

    @contextmanager
    def _following(self) -> Iterator[None]:
        link = self._link
        try:
            yield
        finally:
            self._finished(link)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self._driver.streaming_methods:
            return getattr(self, f"_{name}")
        if self._raw is None or name.startswith("__"):
            raise AttributeError(f"A cursor that has not executed a statement has no {name!r}. Call execute() first.")
        found = getattr(self._raw, name)
        return self._followed(found) if isroutine(found) else found

    def _followed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method of the driver's own cursor, so that its writes are recorded (M1)."""
        link = self._link

        @wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            try:
                return method(*args, **options)
            finally:
                self._finished(link)

        return call

    @property
    def _executed(self) -> Raw:
        if self._raw is None:
            raise self._driver.module.ProgrammingError(
                "This cursor has not executed a statement yet, or was closed. Call execute() first."
            )
        return self._raw

    # The end

    def close(self) -> None:
        """Close the result and release the link. `rowcount`, `lastrowid` and `description` keep their values."""
        link, raw = self._link, self._raw
        self._link, self._raw = None, None
        if raw is None:
            return
        keeps = self._driver.keeps_description
        self._closed = raw if keeps else Result(raw.description, raw.rowcount, raw.lastrowid)
        try:
            raw.close()
        except self._driver.module.Error as error:
            if not (self._workers.closed or self._workers.state().route.failed_late(link, error)):
                raise
        if link is not None and link.writes.news and not self._workers.closed:
            self._finished(link)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


add_probe(
    CursorProbe(
        Cursor,
        ("execute", "executemany", "callproc", "executescript", "_copy", "_stream"),
        lambda cursor: (cursor._workers.state().route, cursor._link),
    )
)
