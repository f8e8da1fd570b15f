"""Route statements to links, also after a failure. There is one `Route` per database and thread, task or session."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replswitch.decision import MASTER, SLAVE
from replswitch.drivers import GONE, Fault
from replswitch.engine import outcome, refusal
from replswitch.engine.attempt import Attempt
from replswitch.engine.block import Block
from replswitch.engine.failure import REFUSED, Action, Effect, OnMaster, Progress, Role, Situation, Spare, decide
from replswitch.engine.recording import is_recording
from replswitch.engine.selection import NO_SCOPE, Selection
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.engine.servers import Link
    from replswitch.scope import Scope


class Route(Selection):
    """Finds the link for each statement, and decides what happens when a statement fails.

    ::

        link = route.for_statement()
        while True:
            try:
                …  # run it on link.raw
            except driver.module.Error as error:
                link = route.failed(attempt, link, error)
                if link is None:
                    raise
            else:
                route.succeeded(link, has_rows=…)
                break
    """

    # After a statement that succeeded

    def succeeded(self, link: Link, *, has_rows: bool, follow: bool = False) -> None:
        """Record that a statement has succeeded. Record also whether it may have written, or read stale rows.

        Args:
            link: the link that it ran on.
            has_rows: it has returned rows.
            follow: if the statement itself has begun or ended a transaction, record this in the route, too (S5).
        """
        block, has_news = self.block, link.writes.news
        link.writes.follow()
        is_open = self._port.driver.in_transaction(link.raw) if has_news else block is not None
        if block is not None:
            block.has_run = True
        if link.server.state == SLAVE:
            if has_rows and self.side == SLAVE:
                self.has_read = True
                if block is not None:
                    block.has_read = True
            link.writes.pop_write_status()  # which resets `news`
        elif block is not None and is_open:
            block.is_recorded = block.is_recorded or is_recording()
        elif not (has_rows and self.pending is not None and not self.pending.resolved):
            self.look_for_writes(link)  # else one later query covers this statement and the earlier ones
        if follow and is_open == (block is None):
            self._follow(link, has_rows=has_rows)

    def _follow(self, link: Link, *, has_rows: bool) -> None:
        if (block := self.block) is None:
            block = Block()
            block.links.append(link)
            block.has_run, block.has_read = True, has_rows and link.server.state == SLAVE
            block.is_recorded = is_recording()
            self.begin(block)
        else:
            self.end()
            for other in block.links:
                if other is not link:
                    self._port.leave(other)

    def rows_ended(self, link: Link) -> None:
        """Record that a statement's rows have been read. Some drivers show only then what the statement has written."""
        pending = self.pending
        if (
            link.server.state == MASTER
            and (pending is None or pending.resolved or link.writes.learns_after_rows)
            and (self.block is None or not self._port.driver.in_transaction(link.raw))
        ):
            self.look_for_writes(link)

    def look_for_writes(self, link: Link, *, recorded: bool | None = None) -> None:
        """Record in the running scope what was committed through a link to the master since the last call (M1).

        Args:
            link: a link to the master.
            recorded: see `replswitch.engine.writes.Writes.look`.
        """
        scope = self._scope
        is_current = self.link is link and scope.version == self._version
        self.pending = self.database.writes.look(link, link.writes, recorded=recorded)
        if is_current:
            self._version = scope.version  # a new write of the scope only matters for reads from a slave

    # After a statement that failed

    def failed(self, attempt: Attempt, link: Link, error: Exception, *, joining: bool = False) -> Link | None:
        """Return the link on which to run a failed statement again; None if the caller must raise the error.

        This method returns None because an error that it raised would form a reference cycle and keep links open.

        Args:
            attempt: what has happened to the statement so far.
            link: the link on which it failed.
            error: the driver's own error.
            joining: the transaction could not begin on the link, so nothing has run.

        Raises:
            SlaveWriteError: the statement is a write that may not move.
            NoServerError: the master is gone, or read-only.
        """
        situation = self._situation(attempt, link, error, joining=joining)
        action, effect = decide(situation)
        self._apply(effect, link, error, situation.fault)
        if action is Action.SPARE:
            lost: BaseException = self.master_error or error
            attempt.lose_master(situation, lost)
            if (spare := self.spare(self._running_scope(), lost)) is not None:
                return self.choose(attempt, picked=(spare, SLAVE, "no-master", False))
            # Decide again, but do not repeat effects that were applied already, such as counting the lost master.
            action, effect = decide(replace(situation, spare=Spare.NONE_LEFT))
            self._apply(effect & Effect.MAY_HAVE_WRITTEN, link, error, situation.fault)
        if action is Action.RAISE:
            return None
        if action is Action.MOVE:
            self._move(link, error)
        elif action is Action.READ_ON_MASTER:
            self._running_scope().force_master(self.database.key, "not-replicated")
        elif action is not Action.CHOOSE:
            cause: BaseException = error
            if action is Action.NO_MASTER:
                cause = self._loss_of_master(attempt) or self.master_error or error
            raise self._error_for(action, attempt, link, cause) from cause
        if action is not Action.CHOOSE and self.block is not None and link in self.block:
            self.block.links.remove(link)
            self._port.leave(link)
        return self.for_statement(attempt)

    def _situation(self, attempt: Attempt, link: Link, error: Exception, *, joining: bool) -> Situation:
        """Return the facts about a failed statement, for `decide`."""
        driver, role, transaction = self._port.driver, self._role_of(link), self._progress(attempt)
        fault, scope = driver.classify(error, link.raw), self._running_scope()
        wrote = scope.wrote
        if joining and fault in GONE:
            fault = Fault.UNSENT
        if role is Role.MASTER:
            if self.block is not None:  # a procedure may have committed before its error
                self.block.is_recorded = self.block.is_recorded or is_recording()
            if fault is Fault.REFUSED:
                fault = Fault.OTHER  # the application itself has begun a read-only transaction
            if fault is Fault.READ_ONLY:
                self.database.master_loss.refused()
            if fault not in GONE and (self.block is None or not driver.in_transaction(link.raw)):
                self.look_for_writes(link)  # executemany() or a procedure may have written before the error
                if fault is Fault.READ_ONLY:  # the link is about to be closed
                    scope.settle()
        elif fault is Fault.TIMED_OUT and transaction is not Progress.HAS_READ:
            fault = self._probe(link)
        attempt.count(role, link.server, fault)
        options = self.database.options
        return Situation(
            role,
            fault,
            transaction,
            # If the master could not be reached when the server was chosen, it has not run the statement.
            OnMaster.NOT_RUN if self.master_error is not None and attempt.error is None else attempt.on_master,
            Spare.POSSIBLE if attempt.repeatable and self._servers_without_master(scope) else Spare.NOT_ALLOWED,
            first=attempt.is_first and (scope.wrote is wrote or link.writes.includes_others),
            again=attempt.lost_again(link.server),
            exhausted=attempt.is_exhausted(role, len(self.database.servers.slaves)),
            may_move=attempt.repeatable and options.on_slave_write != "error" and not link.writes.session_changed,
            force=options.on_slave_write == "force",
        )

    def failed_late(self, link: Link | None, error: Exception) -> bool:
        """Handle an error that arrives after a statement's rows, with a later result or when its cursor is closed.

        Returns:
            True if the error means that the connection is gone. A caller that closes a cursor may ignore such an error.

        Raises:
            SlaveWriteError: a slave has refused a write whose procedure has already returned rows (S8).
        """
        if link is None:
            return False
        fault = self._port.driver.classify(error, link.raw)
        if link.server.state == SLAVE and fault in REFUSED:
            raise self._refusal(link.server.name, refusal.ROWS_ARE_OUT, error) from error
        return fault in GONE

    def read_on(self, link: Link | None, read: Callable[..., Any], *args: Any) -> Any:
        """Call a function that reads more results of a statement, and handle errors that arrive with them (S8)."""
        try:
            return read(*args)
        except self._port.driver.module.Error as error:
            self.failed_late(link, error)
            raise

    def drain(self, link: Link) -> None:
        """Read the results that an earlier statement has left unread on a link, such as those of a procedure."""
        self.read_on(link, self._port.driver.drain_results, link.raw)

    def next_results(self, link: Link | None, raw: Any) -> Any:
        """Move a driver's cursor to its next result set. Return a false value if there is no further one."""
        try:
            return self.read_on(link, raw.nextset)
        finally:
            if link is not None and link.server.state == MASTER:
                self.look_for_writes(link)

    # The end of a transaction

    def commit(self, block: Block) -> None:
        """Commit a transaction that `end` has returned, on each link. If this fails on a link, roll back there.

        Slaves come first, because SQLite's master may have to wait until they release their snapshots.

        Raises:
            Exception: the driver's own error from the master, or the error that ended the transaction early.
        """
        try:
            self.refuse_if_lost(block)
        except BaseException:
            self.roll_back(block)
            raise
        for link in sorted(block.links, key=lambda link: link.server.state == MASTER):
            try:
                self._port.driver.commit(link.raw)
            except self._port.driver.module.Error as error:
                self._port.leave(link)
                if link.server.state == MASTER:  # the transaction may have been committed
                    self.database.writes.record_unknown(is_lost=self._port.driver.is_gone(error))
                    raise
        self._look_for_writes_of(block)

    def roll_back(self, block: Block) -> None:
        """Roll back a transaction that `end` has returned, on each link."""
        block.lost = None  # the error would form a reference cycle with the frames that hold the transaction
        for link in block.links:
            self._port.leave(link)
        self._look_for_writes_of(block)  # some writes cannot be rolled back

    def _look_for_writes_of(self, block: Block) -> None:
        for link in block.links:
            if link.server.state == MASTER and link.is_own:
                self.look_for_writes(link, recorded=block.is_recorded)

    def _join(self, block: Block, link: Link, attempt: Attempt | None) -> Link | None:
        try:
            self._port.join(link)
        except self._port.driver.module.Error as error:
            other = self.failed(attempt or Attempt(), link, error, joining=True)
            if other is None:
                raise
            return other
        block.links.append(link)
        return None

    def _role_of(self, link: Link) -> Role:
        if link.server.state == MASTER:
            return Role.MASTER
        is_master = self.side == MASTER and link.server is self.database.servers.master_read_only
        return Role.MASTER_READ_ONLY if is_master else Role.SLAVE

    def _progress(self, attempt: Attempt) -> Progress:
        if self.block is not None and self._port.has_read(attempt):
            return Progress.HAS_READ
        return Progress.RUN if self.block is not None and self.block.has_run else Progress.NONE

    @staticmethod
    def _running_scope() -> Scope:
        frame = stack()
        return NO_SCOPE if frame is None else frame.scope

    def _probe(self, link: Link) -> Fault:
        """After a time-out, open a new connection to find out whether the server is gone or only slow (F1)."""
        self._drop(link)
        try:
            self._port.open(link.server)
        except self._port.driver.module.Error:
            return Fault.DOWN
        return Fault.SLOW

    def _apply(self, effect: Effect, link: Link, error: Exception, fault: Fault) -> None:
        block, database = self.block, self.database
        self.forget()
        if effect & Effect.END and block is not None:
            block.lost = error
            self._port.lose_block(error)
        if effect & Effect.DROP:
            self._drop(link)
        if effect & Effect.REST:
            database.rotation.rest(link.server, error)
        if effect & Effect.AVOID:
            self._running_scope().avoid_slave(database.key, link.server)
        if effect & Effect.MASTER_LOST:
            database.master_loss.report(error, fault)
        if effect & Effect.MAY_HAVE_WRITTEN:
            database.writes.record_unknown(is_lost=fault in GONE)

    def _drop(self, link: Link) -> None:
        block = self.block
        if block is not None and link in block and block.lost is None:
            block.links.remove(link)
            self._port.part_with(link)
        self._port.drop(link.server, link)

    def _move(self, link: Link, error: Exception) -> None:
        scope, database = self._running_scope(), self.database
        database.report_moved_write(link.server.name, error, has_read=self.has_read)
        if scope is not NO_SCOPE:
            scope.force_master(database.key, "moved-write", again=True)

    def _move_flush(self, scope: Scope) -> None:
        database, block, options = self.database, self.block, self.database.options
        server = "" if block is None or block.slave is None else block.slave.server.name
        if options.on_slave_write == "error":
            raise self._refusal(server, refusal.MAY_NOT_MOVE)
        if options.on_slave_write != "force" and self._port.has_read(None):
            raise self._refusal(server, refusal.HAS_READ)
        database.report_moved_write(server, None, has_read=self.has_read)
        scope.force_master(database.key, "moved-write", again=True)

    def _error_for(self, action: Action, attempt: Attempt, link: Link, error: BaseException) -> BaseException:
        master, own = self.database.servers.master, self._port.as_own
        if action is Action.MASTER_IS_READ_ONLY:
            return own(outcome.master_is_read_only(master, error))
        if action is not Action.REFUSE:
            is_known = action is not Action.LOST_WRITE
            return own(outcome.no_master(master, error, self._port.driver) if is_known else outcome.lost_write(master))
        why = refusal.SESSION_CHANGED if link.writes.session_changed else refusal.HAS_READ
        if self.database.options.on_slave_write == "error":
            why = refusal.MAY_NOT_MOVE
        return self._refusal(link.server.name, why if attempt.repeatable else refusal.OWN_CONNECTION, error)

    def _refusal(self, server: str, why: str, error: BaseException | None = None) -> BaseException:
        return refusal.refusal(self._port, self.database, self._running_scope(), server, why, error)
