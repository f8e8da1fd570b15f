"""The connections of asyncpg, which track what they commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from replswitch.drivers.async_postgresql import AsyncTracker
from replswitch.drivers.postgresql_statement import statement
from replswitch.drivers.written import Written

if TYPE_CHECKING:
    from replswitch.drivers.postgresql_position import Timelines

# The text with which asyncpg itself commits.
_ASYNCPG_COMMIT: Final = "COMMIT;"

# The text with which it rolls back.
_ASYNCPG_ROLLBACK: Final = "ROLLBACK;"

# The texts with which its objects for transactions begin and end a usual transaction.
_ASYNCPGS_OWN: Final = frozenset({"BEGIN;", _ASYNCPG_COMMIT, _ASYNCPG_ROLLBACK})

# asyncpg does not return the rows of several statements in one message. So the server reports the position in a notice
# of the level INFO, which it sends with any `client_min_messages`.
_REPORT_POSITION: Final = (
    "DO $$BEGIN RAISE INFO 'replswitch: % %', current_setting('replswitch.wrote', true),"
    " pg_current_wal_insert_lsn(); END$$"
)
_STORE_WHETHER_WRITTEN: Final = (
    "SELECT set_config('replswitch.wrote', (pg_current_xact_id_if_assigned() IS NOT NULL)::text, false)"
)
_COMMIT: Final = f"{_STORE_WHETHER_WRITTEN}; COMMIT; {_REPORT_POSITION}"
_REPORT_PREFIX: Final = "replswitch: "

# A text in the context of an error that `_REPORT_POSITION` raises after the commit.
_REPORT_CONTEXT: Final = "inline_code_block"


class AsyncpgConnection(AsyncTracker, asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that asyncpg has opened. Its subclasses are those to the master and to slaves.

    Attributes:
        seen: the number of statements that asyncpg had sent at the last commit, rollback or check for writes.
        last_report: the text of the notice that `_REPORT_POSITION` has sent, without its prefix.
        may_report: the account may run `_REPORT_POSITION`. Otherwise the position is queried after the commit.
        is_behind_pooler: the connection goes through a pooler such as PgBouncer, so each transaction may run in another
            session.
    """

    read_only_error = asyncpg.exceptions.ReadOnlySQLTransactionError
    standby_error = asyncpg.exceptions.CannotConnectNowError
    seen = -1
    last_report = ""
    may_report = True
    is_behind_pooler = False

    @property
    def has_run(self) -> bool:
        """Whether asyncpg has sent statements since the last commit, rollback or check for writes."""
        return bool(self._protocol.queries_count != self.seen)

    @has_run.setter
    def has_run(self, value: bool) -> None:
        self.seen = -1 if value else self._protocol.queries_count

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return bool(self.is_closed())

    def reported(self, name: str) -> str | None:
        """Return the value of a setting that the server has reported; None if it has not reported the setting."""
        return getattr(self.get_settings(), name, None)

    def session_id(self) -> int:
        """Return the process id that was sent when the connection was opened."""
        return int(self.get_server_pid())

    @property
    def server_name(self) -> str:
        """The address of the server."""
        return ":".join(map(str, self._addr)) if isinstance(self._addr, tuple) else str(self._addr)

    def forbid_prepared(self) -> None:
        """Record that there is a pooler, so that the caller opens the connection again, without named statements."""
        self.is_behind_pooler = True

    async def set_up(self, timelines: Timelines, *, read_only: bool) -> None:
        """Prepare a connection that was just opened. Check that the account may run `_REPORT_POSITION`."""
        await super().set_up(timelines, read_only=read_only)
        if self.reports_positions:
            try:
                await super().execute(_REPORT_POSITION)
            except asyncpg.exceptions.PostgresError:
                self.may_report = False
        self.has_run = False

    async def answer(self, sql: str) -> Any:
        """Run a query of replswitch's own, and return its row. Do not begin a transaction."""
        has_run = self.has_run
        answer = await super().fetchrow(sql)
        self.has_run = has_run
        return answer


class MasterConnection(AsyncpgConnection):
    """A connection to the master, which queries the position of a transaction in the same message as its commit.

    Its statements pass through no method of this class, except for those of `execute`, because asyncpg counts them.
    """

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement, or several. asyncpg's objects for transactions call it, too. Return an awaitable."""
        is_own = query in _ASYNCPGS_OWN
        if not self._protocol.is_in_transaction():
            if self.has_run and query.startswith("BEGIN"):  # the end of this transaction resets `has_run`
                self.note(Written.ASK)
            return super().execute(query, *args, **options) if is_own else self._follow(query, *args, **options)
        if query == _ASYNCPG_COMMIT and self.reports_positions and self.may_report:
            return self._commit(**options)
        return self._follow(query, *args, **options)

    async def _follow(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement, or several, and record the commits among them."""
        was_in_transaction = self._protocol.is_in_transaction()
        try:
            answer = await super().execute(query, *args, **options)
        except asyncpg.exceptions.PostgresError:
            if query != _ASYNCPG_COMMIT:  # else nothing is committed
                self.note_error(statement(query), is_idle=not self._protocol.is_in_transaction())
            raise
        except BaseException:  # the connection is lost, or the task was cancelled
            self.note_cancellation(statement(query))
            raise
        if self._protocol.is_in_transaction():
            if statement(query).has_commit:  # another transaction has begun after it
                self.note(Written.YES)
        elif was_in_transaction:
            self.ended(Written.NO if query == _ASYNCPG_ROLLBACK else Written.ASK)
        return answer

    async def _commit(self, **options: Any) -> Any:
        """Commit. Query in the same message whether something was written, and at which position."""
        self.last_report = ""
        self.add_log_listener(_store_report)
        try:
            await super().execute(_COMMIT, **options)
        except asyncpg.exceptions.InFailedSQLTransactionError:
            answer = await super().execute(_ASYNCPG_COMMIT, **options)  # which rolls back
            self.ended(Written.NO)
            return answer
        except asyncpg.exceptions.PostgresError as error:
            if _REPORT_CONTEXT not in (error.context or ""):
                raise
        finally:
            self.remove_log_listener(_store_report)
        wrote, _, place = self.last_report.partition(" ")
        status: Any = self.position_at(place) if wrote == "true" else Written.NO
        self.ended(status if place else Written.ASK)
        return "COMMIT"

    async def _copy_in(self, *args: Any, **options: Any) -> Any:
        """Copy rows to the server. asyncpg does not count this as a statement."""
        self.has_run = True
        return await super()._copy_in(*args, **options)


class SlaveConnection(AsyncpgConnection):
    """A connection to a slave. Its methods refuse statements that would let it write (S7).

    They are no coroutine functions, but return the awaitables of asyncpg's own methods.
    """

    def prepare(self, query: Any, **options: Any) -> Any:
        """Prepare a statement."""
        self.before(query)
        return super().prepare(query, **options)

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement, or several."""
        if query not in _ASYNCPGS_OWN:
            self.before(query)
        return super().execute(query, *args, **options)

    def executemany(self, command: Any, args: Any, **options: Any) -> Any:
        """Run a statement several times."""
        self.before(command)
        return super().executemany(command, args, **options)

    def fetch(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement, and return its rows."""
        self.before(query)
        return super().fetch(query, *args, **options)

    def fetchrow(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement, and return its first row."""
        self.before(query)
        return super().fetchrow(query, *args, **options)

    def fetchval(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement, and return a value of its first row."""
        self.before(query)
        return super().fetchval(query, *args, **options)

    def cursor(self, query: Any, *args: Any, **options: Any) -> Any:
        """Return a cursor for a statement."""
        self.before(query)
        return super().cursor(query, *args, **options)


def _store_report(connection: Any, message: Any) -> None:
    """Store the text of the notice that `_REPORT_POSITION` has sent."""
    if message.message.startswith(_REPORT_PREFIX):
        connection.last_report = message.message.removeprefix(_REPORT_PREFIX)
