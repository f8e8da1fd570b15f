"""One session's part in one replicated database: which engine serves it now, and what becomes of an error."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from replswitch.scope import Scope
from replswitch.sqlalchemy.servers import PART, Link, Reach
from replswitch.sqlalchemy.without_master import WithoutMaster
from replswitch.state import MASTER, SLAVE, stack

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

    from replswitch.errors import NoServerError
    from replswitch.positions import Position
    from replswitch.sqlalchemy.servers import SlaveServer
    from replswitch.sqlalchemy.session import RoutingSession
    from replswitch.sqlalchemy.switch import EngineSwitch
    from replswitch.state import Frame, State

#: No frame: so nothing that was chosen before holds.
_NEVER: Final[Any] = object()

_NO_SCOPE: Final = Scope()


class Part:
    """What one session knows of one database.

    Args:
        session: the session.
        switch: the database's.
        engine: the master's engine as the session is bound to it.

    Attributes:
        frame: the top of the stack when the latest engine was chosen, `scope` its scope, and `pins` the scope's: while
            they are the same, and so is the session's transaction, the choice is.
        scope: see `frame`; outside any, one that nobody changes.
        pins: see `frame`.
        bind: the engine that was chosen.
        link: the connection to a slave that the session's transaction has, or is about to get.
        waits: the same, while the session has not got it.
        repeated: the latest error after which a statement may run again.
        has_run: a statement has run on the master, in the session's transaction.
    """

    def __init__(self, session: RoutingSession, switch: EngineSwitch, engine: Engine) -> None:
        self._session = session
        self._switch = switch
        self._database = switch.database
        self._driver = switch.driver
        self._master = engine
        self._reach = Reach(switch.driver, switch.master, self)
        self._noted: tuple[Frame, State, str] | None = None
        self._read_in: tuple[Scope, int] | None = None  # the latest scope that has read from a slave, and since when
        self._is_on_master = False
        self._slave_has: Position | None = None
        self._first_read: int | None = None
        self._fell_back: str | None = None  # no slave could serve, and the master has not been reached yet
        self._has_flushed = False
        self._left: Connection | None = None  # in which a statement has failed that may run again on another
        self._without_master = WithoutMaster(switch)
        self.frame: Frame | None = _NEVER
        self.scope: Scope = _NO_SCOPE
        self.pins: Mapping[Hashable, str] = _NO_SCOPE.pins
        self.bind = engine
        self.link: Link | None = None
        self.waits: Link | None = None
        self.repeated: BaseException | None = None
        self.has_run = False

    # Choosing

    def choose(self, frame: Frame | None, *, flushing: bool) -> Engine:
        """Choose the engine of the next statement.

        Args:
            frame: the top of the stack.
            flushing: the session writes what it has pending (S8).

        Raises:
            SlaveWriteError: a flush in slave state, where `on_slave_write` is "error".
            NoServerError: nobody may serve the read.
        """
        scope = _NO_SCOPE if frame is None else frame.scope
        pins = scope.pins  # what changes from here on is looked at the next time
        side, why = self._database.side(in_master_transaction=self._is_on_master)
        if flushing:
            self._has_flushed = True
            if side == SLAVE:
                slave = "" if self.link is None else self.link.server.name
                self._database.move_flush(slave, scope_has_read=self._scope_has_read(frame, None))
                side, why = MASTER, "moved-write"
        bind: Engine = self._master
        server, served_by = self._switch.master_name, side
        link = None if flushing or frame is None else self._last_resort(scope)
        if link is not None:
            why = "no-master"
        elif side == SLAVE and frame is not None and self._switch.servers:
            link, other = self._slave_link(scope)
            why = other or why
            served_by = MASTER
        if link is not None:
            server, served_by, bind = link.server.name, SLAVE, link.engine
            if not link.is_joined:
                link.engine.offer(link)
        if frame is not None and self._noted != (frame, served_by, server):
            self._noted = (frame, served_by, server)
            self._database.note(scope, served_by, server, why)
        link = self.link
        self.waits = link if link is not None and bind is not self._master and not link.is_joined else None
        self.frame, self.scope, self.pins, self.bind = frame, scope, pins, bind
        return bind

    def offer(self, waits: Link) -> Engine:
        """Return the engine that was chosen, of which the session gets the connection that waits for it."""
        if waits.is_taken:  # by somebody else, who asked the session for its engine
            self.link = waits.part = None
            return self.choose(stack(), flushing=False)
        waits.engine.offer(waits)
        return waits.engine

    def _slave_link(self, scope: Scope) -> tuple[Link | None, str | None]:
        """Return a connection to a slave that has what the scope must see; where none has, None and the reason."""
        database, link = self._database, self.link
        slaves = database.slaves
        must_see = slaves.must_see(scope)
        if (why := scope.pinned(database.key)) is not None:  # found out just now
            return None, why
        if link is not None and link.is_joined and not scope.avoids(database.key, link.server):
            # It shows what it had when the transaction began: neither asking nor waiting would change that.
            if must_see is None or (self._slave_has is not None and self._slave_has.includes(must_see)):
                return link, None
            return None, database.read_on_master(scope, slaves.lack(scope))
        chosen = self._take(scope, self._switch.servers, must_see)
        if chosen is None:
            self._fell_back = slaves.lack(scope)
            return None, self._fell_back
        return chosen, None

    def _last_resort(self, scope: Scope) -> Link | None:
        """Return a connection for a read that the master should serve, and cannot; None where the master is asked.

        Raises:
            NoServerError: no server has what the scope must see.
        """
        without = self._without_master
        if without.error is None or self._is_on_master:
            return None
        servers, link = without.servers(scope), self.link
        if not servers:
            return None
        must_see = self._database.slaves.must_see(scope)
        if link is not None and link.is_joined:
            if link.server in servers and (
                must_see is None or (self._slave_has is not None and self._slave_has.includes(must_see))
            ):
                return link
            without.give_up()
        return self._take(scope, servers, must_see, is_last_resort=True) or without.give_up()

    def _take(
        self, scope: Scope, servers: Sequence[SlaveServer], must_see: Position | None, *, is_last_resort: bool = False
    ) -> Link | None:
        """Take a connection to a slave in place of the one that waits."""
        chosen: Link | None = None
        link = self.link
        try:
            chosen = self._database.slaves.choose(scope, servers, must_see, self._reach, is_last_resort=is_last_resort)
        except self._driver.module.Error as error:
            raise DBAPIError.instance(
                None, None, error, self._driver.module.Error, dialect=self._master.dialect
            ) from error
        finally:
            self._reach.give_back(chosen)
        if link is not None and link is not chosen:
            link.give_back()
        if chosen is not None:
            chosen.engine = chosen.server.engine_like(self._master)
        self.link, self._slave_has = chosen, must_see
        return chosen

    # The session's transaction

    def begin_on_master(self, connection: Connection) -> None:
        """The session's transaction has a connection to the master: it serves the rest (S5)."""
        connection.info[PART] = self
        self._is_on_master = True
        self.frame = _NEVER
        frame = stack()
        if self._fell_back is not None and frame is not None:
            self._database.read_on_master(frame.scope, self._fell_back)
        self._fell_back = None

    def begin_on_slave(self, link: Link) -> None:
        """The session's transaction has a connection to a slave."""
        link.is_joined, self.waits = True, None

    def before_commit(self) -> None:
        """Let the slave's snapshot go, for which SQLite's master may have to wait where both are one file (S10)."""
        link = self.link
        if link is not None and link.is_joined and isinstance(link.raw, sqlite3.Connection):
            link.raw.rollback()

    def end(self) -> None:
        """The session's transaction is over."""
        link = self.link
        self.link = self.waits = None
        if link is not None:
            link.give_back()
            link.part = None
        self.frame = _NEVER
        self._is_on_master = self._has_flushed = self.has_run = False
        self._first_read = self._fell_back = self.repeated = self._left = None
        self._without_master.end()

    def has_read_rows(self) -> None:
        """Rows were read from the slave."""
        if self._first_read is None:
            self._first_read = self._session._moment
        frame = stack()
        if frame is not None and (self._read_in is None or self._read_in[0] is not frame.scope):
            self._read_in = frame.scope, self._session._moment

    def _scope_has_read(self, frame: Frame | None, before: int | None) -> bool:
        if frame is None or self._read_in is None or self._read_in[0] is not frame.scope:
            return False
        return before is None or self._read_in[1] < before

    # Faults

    def failed_on_slave(self, link: Link, context: ExceptionContext) -> None:
        """Decide what becomes of a statement that a slave has failed.

        One that writes runs again on the master (S8), a read on another slave (F1): if the session runs it, and has
        read nothing from the slave in this transaction before.

        Raises:
            SlaveWriteError: a write may not be moved.
            NoServerError: the master has failed it first, and it is a write, or no server is left.
        """
        error, driver, database = context.original_exception, self._driver, self._database
        started = self._session._began_at
        has_read = self._first_read is not None and (started is None or self._first_read < started)
        frame, without = stack(), self._without_master
        if driver.refused_write(error):
            if without.failed_in(started):
                database.refuse_lost_write(error, self._switch.master_name)
            if started is None:
                database.refuse(error, link.server.name, "the application runs it on a connection of its own choice")
            database.move_write(
                error,
                link.server.name,
                scope_has_read=self._scope_has_read(frame, started),
                transaction_has_read=has_read,
            )
        else:
            may_read_again = frame is not None and database.slaves.may_read_again(frame.scope, link, error, self._reach)
            if not may_read_again or has_read or started is None or not without.tries_on(started):
                return
            context.is_disconnect = False  # or else the session could not go on before a rollback
            self._left = context.connection
        self.repeated, self.frame = error, _NEVER

    def failed_on_master(self, context: ExceptionContext) -> bool:
        """Say whether a statement that a lost master has failed may run again, on a connection that refuses writes.

        In slave state, if the session runs it, and nothing else has run in its transaction, which is lost.
        """
        error = context.original_exception
        if (
            self._session._began_at is None
            or self.has_run
            or not self._driver.unreachable(error)
            or not self._may_do_without_master()
        ):
            return False
        self.repeated, self._left = error, context.connection
        return True

    def runs_again(self, error: BaseException | None) -> bool:
        """Say whether the statement that has failed with an error runs again; if so, get ready for it."""
        if self.repeated is None or self.repeated is not error:
            return False
        left, self.repeated, self._left, self.frame = self._left, None, None, _NEVER
        if left is not None:  # a connection of its server's may be needed again, and not this one
            self._session._leave(left)
            if self._is_on_master:
                self._is_on_master = False
                self._without_master.begin(error, self._session._began_at)
            elif self.link is not None:
                self.link.part = None
                self.link = None
        return True

    def runs_without_master(self, error: NoServerError) -> bool:
        """Say whether a statement runs without the master, which could not be reached; if so, get ready for it."""
        if (
            error.server != self._switch.master_name
            or self._is_on_master
            or self.frame is _NEVER  # no engine was chosen, so that it is not the master's that has failed
            or self.bind is not self._master
            or not self._may_do_without_master()
        ):
            return False
        self._without_master.begin(error.__cause__ or error)
        self.frame = _NEVER
        return True

    def _may_do_without_master(self) -> bool:
        frame = stack()
        return (
            frame is not None
            and not self._has_flushed
            and (self.link is None or not self.link.is_joined)
            and self._without_master.error is None
            and bool(self._without_master.servers(frame.scope))
        )
