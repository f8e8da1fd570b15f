"""One session's part in one replicated database: which engine serves it now, and what becomes of an error."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from replswitch.errors import SlaveWriteError
from replswitch.events import tell
from replswitch.place import application_place
from replswitch.scope import Scope
from replswitch.sqlalchemy.servers import PART, Link, Reach
from replswitch.state import MASTER, SLAVE, stack

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

    from replswitch.positions import Position
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
        fell_back: the master was chosen because no slave could serve, and has not been reached yet.
        is_last_resort: there is no master either: slaves are tried that rest or have failed.
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
        self.frame: Frame | None = _NEVER
        self.scope: Scope = _NO_SCOPE
        self.pins: Mapping[Hashable, str] = _NO_SCOPE.pins
        self.bind = engine
        self.link: Link | None = None
        self.waits: Link | None = None
        self.repeated: BaseException | None = None
        self.fell_back: str | None = None
        self.is_last_resort = False

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
        if side == SLAVE and flushing:
            self._move_flush()
            side, why = MASTER, "moved-write"
        bind: Engine = self._master
        server, served_by = self._switch.master_name, side
        if side == SLAVE and frame is not None and self._switch.servers:
            link, why = self._slave_link(scope)
            if link is None:
                served_by = MASTER
            else:
                server = link.server.name
                bind = link.engine
                if not link.is_joined:
                    link.engine.offer(link)
        if frame is not None and self._noted != (frame, served_by, server):
            self._noted = (frame, served_by, server)
            self._database.note(frame, served_by, server, why)
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
        chosen: Link | None = None
        try:
            chosen = slaves.choose(
                scope, self._switch.servers, must_see, self._reach, is_last_resort=self.is_last_resort
            )
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
        if chosen is None:
            self.fell_back = slaves.lack(scope)
            return None, self.fell_back
        return chosen, None

    def _move_flush(self) -> None:
        """Let the master serve from now on, because the session writes what it has pending."""
        database, place = self._database, application_place()
        frame = stack()
        assert frame is not None  # noqa: S101 - without an instruction the state is master; for the type checker
        has_read = self._scope_has_read(frame, None)
        server = "" if self.link is None else self.link.server.name
        if database.options.on_slave_write == "error":
            raise SlaveWriteError(
                f'A session was flushed in slave state, at {place}, and on_slave_write is "error". Say use_master() '
                "before the first statement that belongs to the write.",
                server=server,
                place=place,
            )
        frame.scope.pin(database.key, "moved-write")
        tell(
            "moved-write",
            database.name,
            server,
            "A session that was flushed in slave state writes on the master, at %s. Before it, this scope had %s from "
            "a slave. Say use_master() there.",
            place,
            "read" if has_read else "not read",
        )

    # The session's transaction

    def begin_on_master(self, connection: Connection) -> None:
        """The session's transaction has a connection to the master: it serves the rest (S5)."""
        connection.info[PART] = self
        self._is_on_master = True
        self.frame = _NEVER
        frame = stack()
        if self.fell_back is not None and frame is not None:
            self._database.read_on_master(frame.scope, self.fell_back)
        self.fell_back = None

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
        self._is_on_master = False
        self._first_read = self.fell_back = self.repeated = None
        self.is_last_resort = False

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
        """
        error, driver, database = context.original_exception, self._driver, self._database
        started = self._session._began_at
        has_read = self._first_read is not None and (started is None or self._first_read < started)
        frame = stack()
        if driver.refused_write(error):
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
            if not may_read_again or has_read or started is None:
                return
            context.is_disconnect = False  # or else the session could not go on before a rollback
        self.repeated, self.frame = error, _NEVER

    def has_last_resort(self) -> bool:
        """Say whether slaves may be tried that rest, because the master that should have served is gone (F3)."""
        if self.fell_back is None or self.is_last_resort:
            return False
        self.is_last_resort, self.frame = True, _NEVER
        return True
