"""The driver asyncpg for PostgreSQL, as SQLAlchemy's ``AsyncEngine`` uses it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from replswitch.drivers.async_postgresql import AsyncPostgreSQLDriver, AsyncTracker
from replswitch.drivers.driver import Fault
from replswitch.drivers.one_host import at_address, refuse_check_of_host
from replswitch.drivers.postgresql import NO_RESPONSE, READ_TIMEOUT
from replswitch.drivers.written import Written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.drivers.driver import Raw
    from replswitch.drivers.postgresql_position import Timelines

# The text with which asyncpg itself commits.
_ASYNCPG_COMMIT: Final = "COMMIT;"

# The texts with which its objects for transactions begin and end a usual transaction.
_ASYNCPGS_OWN: Final = frozenset({"BEGIN;", _ASYNCPG_COMMIT, "ROLLBACK;"})

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

# A text in asyncpg's error for a statement that it has not sent, because the server has just ended the session.
_NOT_SENT: Final = "cannot switch to state"

# Errors of a session that lacks a prepared statement, or has another one under its name.
_OTHER_SESSION: Final = (
    asyncpg.exceptions.InvalidSQLStatementNameError,
    asyncpg.exceptions.DuplicatePreparedStatementError,
)
_MUST_BE_UNNAMED: Final = (
    "Behind a connection pooler such as PgBouncer in transaction mode, leave the settings statement_cache_size and "
    "prepared_statement_name_func out. asyncpg's prepared statements then have no names."
)

# The setting with which asyncpg's prepared statements have no names.
_CACHE: Final = "statement_cache_size"

# The first two characters of the SQLSTATEs of lost connections, which asyncpg itself sets.
_LOST: Final = "08"


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
        return await super().fetchrow(sql)


class _Master(AsyncpgConnection):
    """A connection to the master, which queries the position of a transaction in the same message as its commit.

    Its statements pass through no method of this class, except for those of `execute`, because asyncpg counts them.
    """

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Run a statement, or several. asyncpg's objects for transactions call it, too. Return an awaitable."""
        if not self._protocol.is_in_transaction():
            return super().execute(query, *args, **options)
        if query == _ASYNCPG_COMMIT and self.reports_positions and self.may_report:
            return self._commit(**options)
        return self._execute_in_transaction(query, *args, **options)

    async def _execute_in_transaction(self, query: Any, *args: Any, **options: Any) -> Any:
        answer = await super().execute(query, *args, **options)
        if not self._protocol.is_in_transaction():
            self.ended(Written.NO if query.startswith("ROLLBACK") else Written.ASK)
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


class _Slave(AsyncpgConnection):
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


def _with_cure(error: Exception) -> str:
    """Return the text of a server's error. If a pooler may be the cause, add which settings to leave out."""
    return f"{error.args[0]}. {_MUST_BE_UNNAMED}" if isinstance(error, _OTHER_SESSION) else str(error)


def _store_report(connection: Any, message: Any) -> None:
    """Store the text of the notice that `_REPORT_POSITION` has sent."""
    if message.message.startswith(_REPORT_PREFIX):
        connection.last_report = message.message.removeprefix(_REPORT_PREFIX)


@cache
def _tracked(role: Any, kind: Any) -> Any:
    """Return a subclass of ``role`` and of ``kind``, which is asyncpg's or the application's class of connections."""
    return role if kind is asyncpg.Connection else type(kind.__name__, (role, kind), {"__module__": __name__})


class _Adapted:
    """A mixin for SQLAlchemy's class of connections, which translates errors."""

    __slots__ = ()

    if TYPE_CHECKING:
        _connection: Any

    def _handle_exception(self, error: Exception) -> Any:
        """Raise asyncpg's error for a lost connection after a network error, for which asyncpg raises an OSError."""
        tracker = self._connection
        if isinstance(error, TimeoutError) and tracker.is_reader:  # the time-out of a statement
            tracker.timed_out = True
            tracker.terminate()
        if isinstance(error, OSError) and (tracker.timed_out or not isinstance(error, TimeoutError)):
            error = asyncpg.exceptions.ConnectionFailureError(f"the connection is lost: {error!r}")
        elif isinstance(error, _OTHER_SESSION):
            error = type(error)(_with_cure(error))
        elif isinstance(error, asyncpg.exceptions.InternalClientError) and _NOT_SENT in str(error):
            tracker.terminate()
            error = asyncpg.exceptions.InterfaceError(f"the connection is closed: {error}")
        super()._handle_exception(error)  # type: ignore[misc]  # of SQLAlchemy's class


class _AdaptedSlave(_Adapted):
    """The same for a slave's connection, which also notes the statements that SQLAlchemy has prepared before."""

    __slots__ = ()

    def _prepare(self, operation: Any, *args: Any) -> Any:
        """Note that a prepared statement runs. Return the awaitable of SQLAlchemy's own method."""
        self._connection.before(operation)
        return super()._prepare(operation, *args)  # type: ignore[misc]  # of SQLAlchemy's class


@cache
def _adapted(part: Any, kind: Any) -> Any:
    """Return a subclass of ``kind``, SQLAlchemy's class of connections, with `_Adapted` or `_AdaptedSlave`."""
    return type(kind.__name__, (part, kind), {"__module__": __name__, "__slots__": ()})


class AsyncpgDriver(AsyncPostgreSQLDriver):
    """The `replswitch.drivers.Driver` for asyncpg."""

    timeout_setting = "timeout"
    session_setting = "server_settings"

    def with_read_only(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with a parameter that makes sessions read-only, and with a time-out for statements."""
        parameters = {**(settings.get("server_settings") or {}), "default_transaction_read_only": "on"}
        return {"command_timeout": READ_TIMEOUT, **settings, "server_settings": parameters}

    def __init__(self, dialect: Any, *, in_memory: bool = False) -> None:
        super().__init__(dialect, in_memory=in_memory)
        self._behind_pooler: dict[bool, dict[str, Any]] = {}  # more settings: for slaves (True), for the master (False)

    async def _open(self, read_only: bool, *args: Any, **settings: Any) -> AsyncTracker:
        """Connect. Raise errors of the DB-API module, because SQLAlchemy 2.0 translates no errors while it connects."""
        settings = {**self._behind_pooler.get(read_only, {}), **settings}
        try:
            try:
                raw: Any = await super()._open(read_only, *args, **settings)
            except _OTHER_SESSION:
                if _CACHE in settings:
                    raise
                raw = None
            if _CACHE not in settings and (raw is None or raw.is_behind_pooler):
                if raw is not None:
                    self.abort(raw)
                self._behind_pooler[read_only] = more = {_CACHE: 0}
                raw = await super()._open(read_only, *args, **settings, **more)
            return raw  # type: ignore[no-any-return]  # an AsyncpgConnection
        except OSError as error:
            raise self.module.OperationalError(f"the server cannot be reached: {error!r}") from error
        except asyncpg.exceptions.PostgresError as error:
            made = self.module.OperationalError(_with_cure(error))
            made.sqlstate = made.pgcode = error.sqlstate
            raise made from error

    async def connect(self, *args: Any, read_only: bool, **settings: Any) -> AsyncpgConnection:
        """Open a connection that tracks its writes, or one that refuses them."""
        kind: Any = _tracked(_Slave if read_only else _Master, settings.pop("connection_class", asyncpg.Connection))
        raw: AsyncpgConnection = await asyncpg.connect(*args, connection_class=kind, **settings)
        return raw

    def abort(self, raw: AsyncpgConnection) -> None:
        """Close the socket at once."""
        raw.terminate()

    def arguments(self, settings: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
        """Return the settings, with replswitch's function that opens the connection (``async_creator_fn``)."""
        return at_address(super().arguments(settings, read_only=read_only))

    def host_to_look_up(self, settings: Mapping[str, Any], what: str) -> tuple[str, int]:
        """Return the host and the port. Refuse settings with which TLS would verify the address and not the name."""
        refuse_check_of_host(what, "asyncpg", settings.get("ssl"), (True, "verify-full"))
        return super().host_to_look_up(settings, what)

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Set the tracker's `run`, and replace the class of SQLAlchemy's connection by a class that handles errors."""
        super().adopt(raw, read_only=read_only, begin=begin)
        if isinstance(raw.driver_connection, AsyncpgConnection):
            kind: Any = type(raw)
            raw.__class__ = _adapted(_AdaptedSlave if read_only else _Adapted, kind)

    def is_lost(self, tracker: AsyncpgConnection) -> bool:
        """Return whether the connection is closed, without a round trip."""
        return bool(tracker.is_closed())

    def classify(self, error: BaseException, raw: Raw | None = None) -> Fault:
        """Return the meaning of an error. An SQLSTATE that begins with `_LOST`, set by asyncpg itself, means LOST."""
        fault = super().classify(error, raw)
        is_lost = fault is Fault.OTHER and str(getattr(error, "sqlstate", None) or "").startswith(_LOST)
        return Fault.LOST if is_lost else fault

    def ping_again(self, error: BaseException) -> int | None:
        """Return `NO_RESPONSE` without a ping, because an error without an SQLSTATE does not come from the server."""
        return NO_RESPONSE
