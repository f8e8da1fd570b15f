"""mysqlclient, on MariaDB and MySQL.

It shows nothing of what an answer says of the session. So what was written is asked for, once: before the scope's next
read from a slave, or before its response.
"""

from __future__ import annotations

import os
import select
import time
import weakref
from math import inf
from typing import TYPE_CHECKING, Any, Final

import MySQLdb
import MySQLdb.connections
import MySQLdb.cursors

from replswitch.drivers import Written, mysql
from replswitch.drivers.family import MySQLFamilyDriver
from replswitch.drivers.gtids import has_positions, is_mariadb, last_written
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from replswitch.positions import Position

# Ours to decide: transactions are begun and ended by replswitch.
_OURS: Final = {"autocommit"}

# CR_COMMANDS_OUT_OF_SYNC: rows are left to read.
_OUT_OF_SYNC: Final = 2014

# What `Connection.query` comes to: one call less on the way of every statement. Its query must not change meanwhile.
_send: Final[Any] = MySQLdb._mysql.connection.query

# The part of the time for an answer after which a lost connection means that it was over.
_NEARLY: Final = 0.95

# In a forked child: the parent's connections. To close one, which Python does when nothing refers to it, would end the
# parent's session.
_of_parent: Final[list[_Connection]] = []
_open: Final[weakref.WeakSet[_Connection]] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for connection in _open:
        connection.is_parents = True
        _of_parent.append(connection)
    _open.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


class _Connection(MySQLdb.connections.Connection):
    """A connection that can tell whether it is alive, and is not closed by a forked child. To a slave: read-only (S7).

    Args:
        settings: mysqlclient's own.
    """

    plain_cursor = MySQLdb.cursors.Cursor

    #: A transaction is open that was begun by `MySQLClientDriver.begin`.
    in_transaction = False
    #: A statement may have written since this was last asked: never, on a slave.
    in_doubt = False
    #: A statement may have begun a transaction: neither rows nor changes came of it.
    may_be_open = False
    #: This is a forked child, and it is the parent's.
    is_parents = False
    #: When the latest statement was sent, by `time.monotonic`.
    asked_at = 0.0

    def __init__(self, **settings: Any) -> None:
        self.limit: float = settings.get("read_timeout") or inf
        super().__init__(**settings)
        _open.add(self)
        poll = select.poll()
        self.poll = poll.poll
        poll.register(self.fileno(), select.POLLIN)  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
        self._begin()

    def _begin(self) -> None:
        """Prepare the session."""
        self.query("SET SESSION TRANSACTION READ ONLY")

    def query(self, query: Any) -> None:
        self.asked_at = time.monotonic()
        _send(self, bytes(query) if isinstance(query, bytearray) else query)

    def close(self) -> None:
        if self in _open:
            _open.discard(self)
            super().close()  # type: ignore[no-untyped-call]  # likewise


class _MasterConnection(_Connection):
    """A connection that knows whether a statement may have written."""

    #: Whether each write gets a position; None before anybody has asked.
    tells: bool | None = None
    #: Who the server is, as it says itself; None before anybody has asked.
    identity: Hashable | None = None
    #: The position of the latest write, as far as it was asked.
    latest: Position | None = None
    #: There may have been later ones, which counted for nobody.
    is_moved = False
    #: What was told of last has returned rows, as what writes seldom does.
    has_rows = False
    #: And so has all else since the position was asked for.
    only_rows = True
    #: Whether that matters.
    counts_rows = True
    #: How many changes a MySQL had counted for the session then.
    changes = 0

    def _begin(self) -> None:
        self.in_doubt = False  # what was sent were its settings
        self.counts_rows = not is_mariadb(self)

    def query(self, query: Any) -> None:
        self.in_doubt = True
        _send(self, bytes(query) if isinstance(query, bytearray) else query)


class MySQLClientDriver(MySQLFamilyDriver):
    """See `replswitch.drivers.Driver`. Nothing tells of a write: after every statement the server is asked, in time.

    A transaction that the application begins or ends by a statement of its own goes unnoticed.
    """

    module = MySQLdb
    tells_of_writes = False

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that are replswitch's own; mysqlclient does not list what it knows."""
        for name in sorted(_OURS & set(settings)):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is replswitch\'s own to make. Leave it out; autocommit is an '
                "argument of connect()."
            )

    def open(self, settings: Mapping[str, Any], *, read_only: bool) -> _Connection:
        """Connect."""
        kind = _Connection if read_only else _MasterConnection
        return kind(**mysql.with_timeouts(settings, read_only=read_only), autocommit=True)

    def alive(self, raw: _Connection) -> bool:
        """Look at the socket: what the server closed can be read from."""
        # Between statements the server says nothing: what can be read now is its farewell, or the end.
        return bool(raw.open) and not raw.is_parents and not raw.poll(0)

    def reusable(self, raw: _Connection) -> bool:
        """Roll back what is open, or may be; unread results or a changed autocommit mode are not worth repairing."""
        if not self.alive(raw):
            return False
        try:
            if raw.next_result() != -1:  # type: ignore[no-untyped-call]  # likewise
                return False
            if raw.in_transaction or raw.may_be_open:
                self.rollback(raw)
        except MySQLdb.Error:
            return False
        raw.in_doubt = False
        return bool(raw.get_autocommit())  # type: ignore[no-untyped-call]  # likewise

    def begin(self, raw: _Connection) -> None:
        """Send BEGIN."""
        raw.query("BEGIN")
        raw.in_transaction = True

    def commit(self, raw: _Connection) -> None:
        """Commit."""
        raw.commit()  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
        raw.in_transaction = False

    def rollback(self, raw: _Connection) -> None:
        """Roll back. What a statement of the application has committed meanwhile, such as DDL, remains."""
        raw.rollback()  # type: ignore[no-untyped-call]  # likewise
        raw.in_transaction = raw.may_be_open = False

    def in_transaction(self, raw: _Connection) -> bool:
        """Say whether `begin` has begun one."""
        if not raw.field_count() and not raw.affected_rows():  # type: ignore[no-untyped-call]  # likewise
            raw.may_be_open = True
        return raw.in_transaction

    def take_written(self, raw: _MasterConnection) -> Position | Written:
        """Say that the server can be asked, where a statement may have written.

        So may what has returned rows: MariaDB's INSERT … RETURNING, a call of a function. It stays in doubt, because a
        procedure may end behind them with a write.
        """
        if not raw.in_doubt or raw.in_transaction:
            return Written.NO
        raw.in_doubt = raw.has_rows = has_rows = bool(raw.open and raw.field_count())  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
        if not has_rows:
            raw.only_rows = False
        return Written.YES if raw.tells is False else Written.ASK

    def learns_behind_rows(self, raw: _MasterConnection) -> bool:
        """On MySQL, where it counts whether all answers were rows; a MariaDB is asked in any case."""
        return raw.counts_rows

    def latest(self, raw: _MasterConnection) -> Position | None:
        """Return the latest that was asked for."""
        return raw.latest

    def ask_written(self, raw: _MasterConnection, since: Position | None) -> Position | Written:
        """Ask for the position of the latest write."""
        in_doubt = raw.in_doubt  # by statements since; ours are none of the application's
        if raw.tells is None:
            raw.tells = has_positions(raw, identify=False)
        written = last_written(raw, since, only_rows=raw.only_rows) if raw.tells else Written.YES
        raw.in_doubt, raw.only_rows = in_doubt, True
        return written

    def disown_written(self, raw: _MasterConnection, *, with_rows: bool) -> None:
        """Have the position asked for before the next statement that counts."""
        raw.is_moved = raw.is_moved or with_rows or not raw.has_rows

    def prepare(self, raw: _MasterConnection) -> None:
        """Ask for the position of the latest write."""
        if raw.is_moved:
            raw.is_moved = False
            try:
                self.ask_written(raw, None)
            except MySQLdb.Error as error:
                if not self.unreachable(error):
                    raise
                # The statement that follows finds that out, and it is known what to do with one that was not sent.

    def timed_out(self, raw: _Connection, error: BaseException) -> bool:
        """A connection that was lost when the time for an answer was over; no words say so."""
        return self.unreachable(error) and time.monotonic() >= raw.asked_at + _NEARLY * raw.limit

    def read_on(self, raw: _Connection) -> None:
        """Read the further results of a procedure that nobody has asked for. Rows a cursor reads on by itself."""
        try:
            while raw.next_result() == 0:  # type: ignore[no-untyped-call]  # types-mysqlclient leaves it out
                raw.discard_result()
        except MySQLdb.ProgrammingError as error:
            if error.args[0] != _OUT_OF_SYNC:
                raise

    def rolled_back(self, raw: _Connection, error: Exception) -> bool:
        """A deadlock (1213) takes the whole transaction, and so does a lost connection."""
        return mysql.deadlocked(error) or mysql.unreachable(error)


DRIVER: Final = MySQLClientDriver()
