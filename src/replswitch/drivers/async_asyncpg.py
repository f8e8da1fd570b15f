"""The driver asyncpg for PostgreSQL, as SQLAlchemy's ``AsyncEngine`` uses it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from replswitch.drivers.async_asyncpg_connection import AsyncpgConnection, MasterConnection, SlaveConnection
from replswitch.drivers.async_postgresql import AsyncPostgreSQLDriver, AsyncTracker
from replswitch.drivers.driver import Fault
from replswitch.drivers.one_host import at_address, refuse_check_of_host
from replswitch.drivers.postgresql import NO_RESPONSE, READ_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.drivers.driver import Raw

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


def _with_cure(error: Exception) -> str:
    """Return the text of a server's error. If a pooler may be the cause, add which settings to leave out."""
    return f"{error.args[0]}. {_MUST_BE_UNNAMED}" if isinstance(error, _OTHER_SESSION) else str(error)


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
        kind: Any = _tracked(
            SlaveConnection if read_only else MasterConnection, settings.pop("connection_class", asyncpg.Connection)
        )
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
