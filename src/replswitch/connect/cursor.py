"""A DB-API cursor whose side is chosen at ``execute`` and which fetches from the link it executed on."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

from replswitch.decision import MASTER, SLAVE
from replswitch.engine.attempt import Attempt
from replswitch.state import stack

if TYPE_CHECKING:
    from replswitch.connect.local import RouteState
    from replswitch.connect.workers import Workers
    from replswitch.drivers import Driver, Raw
    from replswitch.engine.servers import Link


def materialize(args: Any) -> Any:
    """Return the arguments of ``executemany`` as a sequence: a statement that is moved needs all of them once more."""
    return list(args) if isinstance(args, Iterator) else args


class Cursor:
    """A cursor of PEP 249. What the driver's own cursor has besides is reached through it once it has executed.

    Args:
        workers: what each thread and task holds of the connection that the cursor belongs to.
        driver: of the connection.
        arguments: what the driver's ``cursor()`` takes, such as PyMySQL's cursor class.
    """

    _link: Link | None = None
    _raw: Raw = None
    _closed: tuple[Any, int, Any] = (None, -1, None)  # what stays after close()
    _arraysize = 1

    def __init__(self, workers: Workers, driver: Driver, arguments: tuple[Any, ...]) -> None:
        self._workers = workers
        self._driver = driver
        self._arguments = arguments

    # What runs a statement

    def execute(self, sql: str, args: Any = None) -> Any:
        """Run a statement on the side that the state asks for. Returns what the driver's ``execute`` returns."""
        # Written out, because it is on the way of every query: what `_run` does when all goes well.
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
            result = raw.execute(sql) if args is None else raw.execute(sql, args)
        except self._driver.module.Error as error:
            attempt = Attempt()
            following = route.failed(attempt, link, error)
            if following is None:
                raise
            return self._run("execute", sql, args, following, attempt)
        if link.writes.news or route.block is not None:
            route.succeeded(link, has_rows=raw.description is not None, follow=True)
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
        """Run several statements, where the driver can (sqlite3)."""
        return self._run("executescript", sql, None)

    def mogrify(self, sql: str, args: Any = None) -> Any:
        """Return a statement with its arguments, as the driver would send it; where the driver can."""
        raw = self._raw or self._bind(self._workers.state().route.pick().link)
        return raw.mogrify(sql, args)

    def _run(self, method: str, sql: str, args: Any, link: Link | None = None, attempt: Attempt | None = None) -> Any:
        """Run a statement; one that has failed, where it may run instead."""
        state = self._workers.state()
        if not state.autocommit:
            state.begin_implicitly()
        attempt = attempt or Attempt(single=method == "execute")
        link = link or state.route.for_statement()
        while True:
            try:
                return self._run_on(state, link, method, sql, args)
            except self._driver.module.Error as error:
                following = state.route.failed(attempt, link, error)
                if following is None:
                    raise
                link = following

    def _run_on(self, state: RouteState, link: Link, method: str, sql: str, args: Any) -> Any:
        started = perf_counter()
        try:
            if link.writes.unread:
                state.route.drain(link)
            if self._link is not link:
                self._link, self._raw = None, None
                self._link, self._raw = link, self._bind(link)
            raw = self._raw
            run = getattr(raw, method)
            result = run(sql) if args is None else run(sql, args)
        finally:
            if self._workers.debug:
                self._workers.log(state, link, sql, perf_counter() - started)
        state.route.succeeded(link, has_rows=raw.description is not None, follow=True)
        return self if result is raw else result

    def _bind(self, link: Link) -> Raw:
        """Make a cursor of the driver's on a link."""
        raw = link.raw.cursor(*self._arguments)
        if self._arraysize != 1:
            raw.arraysize = self._arraysize
        return raw

    # What fetches

    def fetchone(self) -> Any:
        """Return the next row, None behind the last."""
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
        """Go on to the next result set; returns a false value when there is none."""
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
        # A driver that fetches row by row learns only after the last one what its statement has written.
        if link is not None and link.writes.news and link.server.state == MASTER:
            self._workers.state().route.rows_ended(link)

    # What tells

    @property
    def description(self) -> Any:
        """The columns of the result; None without one."""
        return self._closed[0] if self._raw is None else self._raw.description

    @property
    def rowcount(self) -> int:
        """The number of rows found or changed; -1 before a statement has run."""
        return int(self._closed[1] if self._raw is None else self._raw.rowcount)

    @property
    def lastrowid(self) -> Any:
        """The key of the row inserted last; None without one."""
        return self._closed[2] if self._raw is None else self._raw.lastrowid

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` returns by default: 1."""
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

    def __getattr__(self, name: str) -> Any:
        if self._raw is None or name.startswith("__"):
            raise AttributeError(f"A cursor that has not executed a statement has no {name!r}. Call execute() first.")
        return getattr(self._raw, name)

    @property
    def _executed(self) -> Raw:
        if self._raw is None:
            raise self._driver.module.ProgrammingError(
                "This cursor has not executed a statement yet, or was closed. Call execute() first."
            )
        return self._raw

    # The end

    def close(self) -> None:
        """Let the result and the link go. `rowcount`, `lastrowid` and `description` stay."""
        link, raw = self._link, self._raw
        self._link, self._raw = None, None
        if raw is None:
            return
        self._closed = raw.description, raw.rowcount, raw.lastrowid
        try:
            raw.close()
        except self._driver.module.Error as error:
            if not (self._workers.closed or self._workers.state().route.failed_late(link, error)):
                raise
        if not self._workers.closed:
            self._finished(link)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
