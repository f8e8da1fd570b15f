"""The common part of the asyncio drivers of PostgreSQL. SQLAlchemy opens their connections.

SQLAlchemy calls their coroutines from synchronous code (``run_async``). So some coroutines of a connection have a
counterpart without ``async``: a method of the tracker or of the driver, which waits for the result.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from replswitch.drivers.postgresql import CONNECT_TIMEOUT, NOT_READ_ONLY, PostgreSQLFamilyDriver
from replswitch.drivers.postgresql_position import POSITION, WRITTEN
from replswitch.drivers.postgresql_tracker import PostgreSQLTracker
from replswitch.drivers.unknown import UnknownDriver
from replswitch.drivers.written import Written, later

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from replswitch.drivers.driver import Fault, Raw
    from replswitch.drivers.postgresql_position import Timelines
    from replswitch.drivers.written import WriteTracker
    from replswitch.positions import Position

# Queries the place in the log, and a transaction id above those of all transactions that have ended. If a statement
# begins after one answer and writes, the id in the next answer is higher.
_WRITTEN: Final = f"{WRITTEN}::text, pg_snapshot_xmax(pg_current_snapshot())::text"

# A part of PgBouncer's message when it refuses a parameter.
_NO_STARTUP_PARAMETER: Final = "unsupported startup parameter"


class AsyncTracker(PostgreSQLTracker):
    """A connection of an asyncio driver, which is its own write tracker.

    The position of a transaction is fetched in the same round trip as its commit. After a statement in autocommit mode,
    the position is queried separately, in the same task.

    Attributes:
        run: waits for a coroutine function, in SQLAlchemy's greenlet. `AsyncPostgreSQLDriver.adopt` sets it.
        has_run: statements have run since the last commit, rollback or check for writes.
        last_id: the id in the latest answer to `_WRITTEN`.
        baseline_is_stale: there may be writes after `last_known_position` that no scope has recorded.
    """

    includes_others = True
    reports_all = True
    run: Callable[[Callable[[Any], Awaitable[Any]]], Any]
    last_id = ""
    baseline_is_stale = False
    process = 0

    if TYPE_CHECKING:
        has_run: bool
        is_in_transaction: Callable[[], bool]

    async def answer(self, sql: str) -> Any:
        """Run a query of replswitch's own, and return its row. Do not begin a transaction."""
        raise NotImplementedError

    def question(self, sql: str) -> Any:
        """Run a query of replswitch's own in SQLAlchemy's greenlet, and return its row."""
        return self.run(lambda _: self.answer(sql))

    async def set_up(self, timelines: Timelines, *, read_only: bool) -> None:
        """Prepare a connection that was just opened. Store a master's answer in ``timelines``.

        Raises:
            Exception: ``standby_error``, if the connection is for the master but the server is a standby, or if the
                connection is for a slave but would not refuse writes.
        """
        self.process = os.getpid()
        self.is_reader = read_only
        if not read_only:
            row = await self.answer(POSITION)
            self.recognise(row, timelines)
            self.last_id = row[11]
            if row[10] != self.session_id():
                self.forbid_prepared()
        elif self.reported("default_transaction_read_only") == "off":
            # A pooler has not passed the setting on. A standby refuses writes even without it.
            self.forbid_prepared()
            (is_standby,) = await self.answer("SELECT pg_is_in_recovery()")
            if not is_standby:
                raise self.standby_error(NOT_READ_ONLY)
        self.has_run = False

    def session_id(self) -> int:
        """Return the process id that was sent at connect. Behind a pooler, ``pg_backend_pid()`` differs from it."""
        raise NotImplementedError

    def forbid_prepared(self) -> None:
        """Switch automatic prepared statements off, because a pooler may run each transaction in another session."""

    def ended(self, status: Position | Written) -> None:
        """Record the end of a transaction, and what it has committed."""
        self.has_run = False
        if status is not Written.NO and not self.is_reader:
            self.note(status)

    # WriteTracker

    def may_have_news(self) -> bool:
        """Return False if no statement has run since the last commit, rollback or check for writes."""
        return self.has_run or self.written is not Written.NO

    def has_written(self) -> bool:
        """Return whether a statement has committed something that was not reported so far."""
        return self.written is not Written.NO

    def pop_write_status(self) -> Position | Written:
        """Return what was committed; `Written.ASK` if a statement outside a transaction may have written."""
        status = super().pop_write_status()
        if self.is_reader or not self.has_run or self.is_in_transaction():
            return status
        self.has_run = False
        return later(status, Written.ASK if self.reports_positions else Written.YES)

    def ask(self, since: Position | None) -> Position | Written:
        """Return the master's current position; `Written.NO` if no transaction has written since the last answer."""
        if not self.reports_positions:
            return Written.YES
        place, latest = self.question(_WRITTEN)
        self.has_run = False
        before, self.last_id = self.last_id, latest
        self.last_known_position = self.position_at(place)
        return Written.NO if latest == before else self.last_known_position

    def discard_write_status(self, *, with_rows: bool) -> None:
        """Discard the status, so that no scope records the write. `refresh_baseline` then queries a newer position.

        ``with_rows`` has no effect, because the position is queried anew even if all statements have returned rows.
        """
        self.baseline_is_stale = True

    def refresh_baseline(self) -> None:
        """Query the position, if there may have been a write that no scope has recorded."""
        if self.baseline_is_stale:
            self.baseline_is_stale = False
            with suppress(Exception):  # the next statement fails likewise
                self.ask(None)


class _Opening(partial[Any]):
    """Marks replswitch's function for opening connections, to distinguish it from the application's function."""


class AsyncPostgreSQLDriver(UnknownDriver, PostgreSQLFamilyDriver):
    """The base class of the drivers for asyncpg and for psycopg 3 with asyncio.

    If the application opens the connections with a function of its own, they are handled as those of an
    `UnknownDriver`.

    Attributes:
        timeout_setting: the name of the driver's connect time-out.
        session_setting: the name of the setting with the parameters of the session.
    """

    timeout_setting: ClassVar[str]
    session_setting: ClassVar[str]

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Accept all settings. The driver checks them when it connects."""

    def host_to_look_up(self, settings: Mapping[str, Any], what: str) -> tuple[str, int]:
        """Return the host and the port."""
        return PostgreSQLFamilyDriver.host_to_look_up(self, settings, what)

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the settings, with replswitch's function that opens the connection (``async_creator_fn``)."""
        arguments = {self.timeout_setting: CONNECT_TIMEOUT, **settings}
        # SQLAlchemy 2.0 keeps the arguments of a connection for the next one, and a slave may get those of the master.
        if isinstance(arguments.get("async_creator_fn"), _Opening | None):
            arguments["async_creator_fn"] = _Opening(self._open, read_only)
        return arguments

    async def _open(self, read_only: bool, *args: Any, **settings: Any) -> AsyncTracker:
        """Open and prepare a connection. If PgBouncer refuses the read-only parameter, connect without it."""
        arguments = self.with_read_only(settings) if read_only else dict(settings)
        try:
            raw: AsyncTracker = await self.connect(*args, read_only=read_only, **arguments)
        except Exception as error:
            if not read_only or _NO_STARTUP_PARAMETER not in str(error):
                raise
            del arguments[self.session_setting]  # PgBouncer does not accept the parameter
            if self.session_setting in settings:
                arguments[self.session_setting] = settings[self.session_setting]
            raw = await self.connect(*args, read_only=read_only, **arguments)
        try:
            await raw.set_up(self.timelines, read_only=read_only)
        except BaseException:
            self.abort(raw)
            raise
        return raw

    def with_read_only(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings of a connection whose transactions are read-only, even after RESET ALL and DISCARD ALL."""
        raise NotImplementedError

    async def connect(self, *args: Any, read_only: bool, **settings: Any) -> Any:
        """Connect, and return a connection that tracks what it commits, or one whose statements must not write."""
        raise NotImplementedError

    def abort(self, raw: Any) -> None:
        """Close a connection at once."""
        raise NotImplementedError

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Set the tracker's `run`. Make a slave's connection that the application has opened read-only."""
        tracker = raw.driver_connection
        if isinstance(tracker, AsyncTracker):
            tracker.run = raw.run_async
        else:
            super().adopt(raw, read_only=read_only, begin=begin)

    def writes_of(self, raw: Raw) -> WriteTracker:
        """Return the driver's own connection, which is the tracker; this driver, for a connection of another class."""
        tracker = raw.driver_connection
        return tracker if isinstance(tracker, AsyncTracker) else self

    def in_transaction(self, raw: Raw) -> bool:
        """Return whether a transaction is open, from the status in the server's latest answer."""
        tracker = getattr(raw, "driver_connection", raw)
        return isinstance(tracker, AsyncTracker) and tracker.is_in_transaction()

    def alive(self, raw: Raw) -> bool:
        """Return whether the connection is open. In a forked child, return False, because the parent owns it."""
        tracker = raw.driver_connection
        return not isinstance(tracker, AsyncTracker) or (tracker.process == os.getpid() and not self.is_lost(tracker))

    def is_lost(self, tracker: Any) -> bool:
        """Return whether a connection is closed, without a round trip."""
        return bool(tracker.closed)

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Query the identity and the position of the server."""
        tracker: Any = self.writes_of(raw)
        return super().fetch_position(raw) if tracker is self else PostgreSQLFamilyDriver.fetch_position(self, tracker)

    def pause(self, raw: Raw, seconds: float) -> None:
        """Wait without blocking the event loop."""
        raw.run_async(lambda _: asyncio.sleep(seconds))

    def classify(self, error: BaseException, raw: Raw | None = None) -> Fault:
        """Return the meaning of an error, by its SQLSTATE and by whether the connection is closed."""
        tracker: Any = None if raw is None else self.writes_of(raw)
        if tracker is self:
            return super().classify(error, raw)
        return PostgreSQLFamilyDriver.classify(self, error, tracker)
