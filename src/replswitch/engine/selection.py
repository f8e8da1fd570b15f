"""Select the link that a statement runs on, by the state, the available servers and the open transaction."""

from __future__ import annotations

import weakref
from os import getpid
from typing import TYPE_CHECKING, Any, Final

from replswitch.decision import MASTER, SLAVE
from replswitch.drivers import Fault
from replswitch.engine import outcome
from replswitch.engine.choose import Choice, choose, choose_slave, run
from replswitch.engine.database import ROLLOUT
from replswitch.engine.failure import OnMaster
from replswitch.engine.recording import is_recording
from replswitch.engine.rotation import last_resort
from replswitch.errors import NoServerError
from replswitch.scope import Scope
from replswitch.state import stack
from replswitch.telemetry.counters import STATEMENTS, Tally

if TYPE_CHECKING:
    from replswitch.decision import State
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.block import Block
    from replswitch.engine.database import Database
    from replswitch.engine.port import Port
    from replswitch.engine.servers import Link, Server
    from replswitch.engine.writes import PendingWrite
    from replswitch.positions import Position
    from replswitch.state import Frame

NO_SCOPE: Final = Scope()  #: Stands for the scope of code that runs outside any scope; nothing is recorded in it.
_NEVER: Final[Any] = object()  # equal to no frame, so that the previous choice is not reused


class Selection:
    """Selects the link for each statement of one thread, task or session.

    Args:
        database: the database.
        port: opens, joins and drops links.

    Attributes:
        block: the open transaction; None outside a transaction.
        link: the latest link. It serves the next statement as well, as long as nothing changes.
        side: the state that the latest link serves.
        reason: the reason why the latest link was chosen.
        tally: counts the statements on the latest link; a binding calls its ``add()`` after each statement.
        pending: the latest statements that may have written, if the master must still be queried; else None.
        has_read: the scope has read rows from a slave.
        slave_has: a position that the slave had reached when it was chosen; None if the slave was not asked.
        master_error: the error with which the master was lost, if the link replaces the master; else None.
        joins_late: True if a link joins the transaction only when the session gets its connection (SQLAlchemy). False
            if a link joins as soon as it is chosen.
        held: used with `joins_late`: a scope and a reason. As soon as the master's link has joined, the master serves
            this scope to its end, for this reason. None if there is no such scope.
    """

    joins_late = False
    held: tuple[Scope, str] | None = None
    tally = Tally(("", "", "", ""))
    block: Block | None = None
    link: Link | None = None
    side: State = MASTER
    reason = "default"
    pending: PendingWrite | None = None
    has_read = False
    slave_has: Position | None = None
    master_error: BaseException | None = None

    _frame: Frame | None = _NEVER
    _scope = NO_SCOPE
    _version = 0
    _noted: tuple[Frame | None, Link | None] = (None, None)

    def __init__(self, database: Database, port: Port) -> None:
        self.database = database
        # The port owns its route. A reference cycle would keep links open until Python's garbage collector runs.
        self._port: Port = weakref.proxy(port)

    def for_statement(self, attempt: Attempt | None = None, *, flushing: bool = False) -> Link:
        """Return the link for the next statement. Usually, this is the link of the previous statement.

        Args:
            attempt: what has happened to the statement so far; None at the first try.
            flushing: a session is flushing its pending changes (S8).

        Raises:
            Exception: the driver's own error.
            NoServerError: no server can run the statement.
            SlaveWriteError: a flush in slave state may not move to the master.
        """
        link = self.link
        if (
            link is not None
            and stack() is self._frame
            and self._scope.version == self._version
            and link.process == getpid()
            and not flushing
            and not link.readable(0)
        ):
            return link
        return self.choose(attempt, flushing=flushing)

    # What invalidates an earlier choice

    def forget(self) -> None:
        """Choose anew for the next statement, because a link was closed, or a transaction has begun or ended."""
        self.link, self._frame = None, _NEVER

    def let_go(self) -> None:
        """Drop all references to links."""
        self.link, self._frame, self._noted = None, _NEVER, (None, None)

    def leave_scope(self) -> None:
        """Drop all references to the running scope, because a scope keeps its pending writes in memory."""
        self.let_go()
        self._scope, self.pending, self.has_read, self.master_error = NO_SCOPE, None, False, None

    def begin(self, block: Block) -> None:
        """Begin a transaction; links join it with their first statement."""
        self.block = block
        self.link, self._frame = None, _NEVER

    def end(self) -> Block | None:
        """End the transaction, and return it. The binding must commit or roll back on its links."""
        block, self.block = self.block, None
        self.link, self._frame = None, _NEVER
        return block

    def refuse_if_lost(self, block: Block) -> None:
        """Raise the error of a transaction if it has ended early, for example because the process has forked (S12)."""
        if block.lost is None and block.links and not all(link.is_own for link in block.links):
            error = self._port.driver.module.InterfaceError
            block.lost = error("This transaction was begun before a fork, in the parent process. Begin another one.")
        if block.lost is not None:
            raise block.lost

    # Choosing

    def choose(self, attempt: Attempt | None = None, *, flushing: bool = False, picked: Choice | None = None) -> Link:
        """Choose the link for the next statement anew, or take the choice ``picked``. See also `for_statement`."""
        frame, block = stack(), self.block
        scope = NO_SCOPE if frame is None else frame.scope
        if scope is not self._scope:
            self._scope, self.has_read = scope, False
        version = scope.version  # later changes are considered at the next statement
        self.link = self.pending = self.held = None
        if block is not None and (block.links or block.lost is not None):
            self.refuse_if_lost(block)
        link, self.side, why, holds = picked or self._pick(frame, scope, attempt, flushing=flushing)
        if why != "no-master":
            self.master_error = None
        server = link.server
        if scope is not NO_SCOPE and server.state == MASTER:
            if is_recording():
                link.writes.refresh_baseline()
            elif scope.pending:
                scope.settle()
        if block is not None and not self.joins_late and link not in block.links:
            if server.state == MASTER:
                block.release_reads(self.database.servers.master_read_only, self._port)
            other = self._join(block, link, attempt)
            if other is not None:
                return other
        if holds:
            self._hold(scope, why)
        if self._noted != (frame, link):
            self._noted, self.reason = (frame, link), why
            if scope is not NO_SCOPE:
                self.database.note(scope, self.side, server, why)
        self.tally = STATEMENTS.tally(self.database.name, self.side, server.name, self.reason)
        self._frame, self._version, self.link = frame, version, link
        return link

    def _join(self, block: Block, link: Link, attempt: Attempt | None) -> Link | None:
        """Add a link to the transaction. Return None or, after a failure, the link to use instead."""
        raise NotImplementedError

    def _hold(self, scope: Scope, why: str) -> None:
        """Let the master serve the database until the scope ends."""
        scope.force_master(self.database.key, why)

    def pick(self) -> Link:
        """Choose the link for a query of the binding itself. It joins no transaction, and no decision is recorded."""
        frame = stack()
        return self._pick(frame, NO_SCOPE if frame is None else frame.scope, None, flushing=False)[0]

    def _pick(self, frame: Frame | None, scope: Scope, attempt: Attempt | None, *, flushing: bool) -> Choice:
        database, block = self.database, self.block
        side, why = database.side(frame, scope, block)
        if flushing and side == SLAVE:
            self._move_flush(scope)
            side, why = MASTER, "moved-write"
        may_be_lost = attempt is not None or (block is not None and block.without_master is not None)
        if may_be_lost and not flushing and (lost := self._loss_of_master(attempt)) is not None:
            return self._without_master(scope, lost, attempt)
        if side == MASTER or scope is NO_SCOPE:
            return self._pick_master(scope, why, attempt)
        if self._port.one_link:
            link, _, why, holds = self._pick_master(scope, why, attempt)
            return link, SLAVE, why, holds
        return self._pick_slave(scope, why, attempt)

    # A slave

    def _pick_slave(self, scope: Scope, why: str, attempt: Attempt | None) -> Choice:
        """Choose a slave that has what the scope must see; if there is none, choose the master."""
        database, block, key = self.database, self.block, self.database.key
        if scope.pending:
            scope.settle()
        must_see = scope.must_see.get(database.set_name) if database.servers.has_slaves else None
        if scope.forced_master and (forced := database.forced_master(scope, block)) is not None:  # set by settle()
            return self._pick_master(scope, forced, attempt)
        if is_held_back := scope.held_back and database.servers.has_slaves:
            why = ROLLOUT  # the master serves, over a read-only link (R6)
        joined = block.slave if block is not None and block.links else None
        if joined is not None and block is not None:
            if block.has_read or (key, joined.server) not in scope.avoided:
                if self._shows(must_see):
                    return joined, SLAVE, why, False
                return self._pick_master(scope, self._reason_for_master(scope), attempt, holds=True)
            block.links.remove(joined)
            self._port.leave(joined)
        if is_held_back:
            link, side, why, _ = self._pick_master(scope, ROLLOUT, attempt)
            self.slave_has, is_read_only = must_see, link.server.state == SLAVE
            return link, SLAVE if is_read_only else side, why, not is_read_only
        wait = scope.wait or database.options.wait
        found = choose_slave(scope, key, must_see, database.rotation, wait, self._port)
        if found is None:
            return self._pick_master(scope, self._reason_for_master(scope), attempt, holds=True)
        self.slave_has = must_see
        return found, SLAVE, why, False

    def _shows(self, must_see: Position | None) -> bool:
        """Return whether the transaction's slave has ``must_see``, without a query, as its snapshot does not change."""
        return must_see is None or (self.slave_has is not None and self.slave_has.includes(must_see))

    def _reason_for_master(self, scope: Scope) -> str:
        try:
            return self.database.reason_for_master(scope)
        except NoServerError as error:
            raise self._port.as_own(error) from None

    # The master

    def _pick_master(self, scope: Scope, why: str, attempt: Attempt | None, *, holds: bool = False) -> Choice:
        """Choose the master; if it cannot be reached, choose a server that may serve a read instead (F3)."""
        try:
            return self._master(scope, why), MASTER, why, holds
        except NoServerError as error:
            fault = self._port.driver.classify(cause := error.__cause__ or error)
            self.database.master_loss.not_reached(fault)
            if attempt is None:  # else the loss was counted when the statement failed (F5)
                self.database.master_loss.report(cause, fault)
            return self._without_master(scope, cause, attempt, is_there=fault is Fault.FULL)

    def _master(self, scope: Scope, why: str) -> Link:
        database, block, port, server = self.database, self.block, self._port, self.database.servers.master
        for joined in () if block is None else block.links:
            if joined.server is server:
                return joined
        try:
            if not port.one_link and database.reads_only(scope, why, port.driver, block):
                read_only = database.open_master_read_only(scope, port)
                if read_only is not None:
                    return read_only
            link = port.open(server)
            if (scope.must_see or scope.lost_before) and database.leads_to_former_master(scope, link, port):
                port.drop(server, link)  # the other idle links go to the former master as well
                link = port.open(server)
        except port.driver.module.Error as error:
            if not port.driver.is_gone(error):
                raise
            # The traceback refers to frames that hold the error. This reference cycle would keep links open longer.
            raise port.as_own(outcome.no_master(server, error, port.driver)) from error.with_traceback(None)
        if database.master_loss.lasts:
            database.master_loss.opened(link)
        return link

    # Without the master

    def _loss_of_master(self, attempt: Attempt | None) -> BaseException | None:
        """Return the error that showed the loss of the master; None if the statement does not go on without it."""
        if attempt is not None and attempt.error is not None:
            return attempt.error
        return None if self.block is None else self.block.without_master

    def _servers_without_master(self, scope: Scope) -> tuple[Server, ...]:
        """Return the servers that may replace the master; none if the transaction ran statements before the loss."""
        block = self.block
        if scope is NO_SCOPE or self._port.one_link:
            return ()
        if block is not None and block.has_run and (block.on_master or block.without_master is None):
            return ()
        return self.database.servers_without_master(scope)

    def _without_master(
        self, scope: Scope, cause: BaseException, attempt: Attempt | None, *, is_there: bool = True
    ) -> Choice:
        """Choose a server to replace the master, or raise NoServerError if there is none."""
        link = self.spare(scope, cause, is_there=is_there)
        if link is None:
            if attempt is not None and attempt.on_master is OnMaster.MAY_HAVE_RUN:
                self.database.writes.record_unknown(is_lost=True)
            master, driver = self.database.servers.master, self._port.driver
            raise self._port.as_own(outcome.no_master(master, cause, driver)) from cause
        return link, SLAVE, "no-master", False

    def spare(self, scope: Scope, cause: BaseException, *, is_there: bool = True) -> Link | None:
        """Return a link for a read that the lost master cannot serve; None if no server has what the scope must see.

        Any slave may serve it, even one that is out of rotation, and so may the server to which the master's name now
        points. The link is read-only.

        Args:
            scope: the running scope.
            cause: the error with which the master was lost.
            is_there: False if no server answers under the master's name, so that trying it would only cost a time-out.
        """
        scope.settle()  # first: a write whose position cannot be queried any more excludes all slaves
        database, block, servers = self.database, self.block, self._servers_without_master(scope)
        if not is_there:
            servers = tuple(server for server in servers if server is not database.servers.master_read_only)
        if not servers:
            return None
        must_see = scope.must_see.get(database.set_name) if database.servers.has_slaves else None
        joined = None if block is None else block.slave
        if joined is not None and block is not None:
            if joined.server not in servers or not self._shows(must_see):
                return None
            block.without_master = self.master_error = cause
            return joined
        if database.servers.master_read_only not in database.servers.slaves:
            # Its idle links go to the lost master, and each would cost a time-out.
            self._port.drop(database.servers.master_read_only)
        in_turn = last_resort(scope.slaves.get(database.key), servers)
        steps = choose(scope, database.key, in_turn, must_see, database.rotation, is_last_resort=True)
        link = run(steps, self._port)
        if link is not None:
            self.slave_has, self.master_error = must_see, cause
            if block is not None:
                block.without_master = cause
        return link

    def _move_flush(self, scope: Scope) -> None:
        """Move a session's flush in slave state to the master, if that is allowed (S8)."""
        raise NotImplementedError
