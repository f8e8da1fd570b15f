"""The mixin that makes a Django backend switch: `SwitchingWrapper`.

A transaction belongs to the database and not to a link. Each link joins it with its first statement, and all links end
it together (S5).
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager, nullcontext, suppress
from os import getpid
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, Error, ProgrammingError
from django.db.backends.utils import debug_transaction
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.connecting import ConnectingWrapper
from django_replswitch.backends.cursor import LoggedQuery, QueriesLog, SwitchingCursor
from django_replswitch.backends.switch_methods import SwitchMethods
from replswitch.engine.attempt import Attempt
from replswitch.engine.block import Block
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from replswitch.engine.servers import Link, Server
    from replswitch.scope import Scope


class SwitchingWrapper(SwitchMethods, ConnectingWrapper):
    """A mixin for a backend's ``DatabaseWrapper``. Statements run on the link that the route chooses.

    While autocommit is off, the route always has a transaction (`Block`). In autocommit mode, it has one only if a
    statement of the application, such as BEGIN, has begun it.
    """

    _savepoints: tuple[str, ...] = ()  # the savepoints of the transaction, for links that join later

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        self.switch = self._shared.switch
        self.queries_log = QueriesLog(self)
        self._unsent: list[LoggedQuery] = []

    # Cursors

    @property
    def closed_cursor_error(self) -> Any:
        """The class of the driver's error for a cursor that is closed."""
        return getattr(self.Database, self.features.closed_cursor_error_class.__name__)

    def raise_as_stock(self, error: Exception) -> None:
        """If the cursor of Django's own backend raises another error in place of this one, raise that other error."""

    def _cursor(self, name: str | None = None) -> Any:
        """Return a cursor that chooses its link with each statement."""
        if self._is_direct:
            return super()._cursor(name)
        self.be_connected()
        return self._prepare_cursor(self.switching_cursor(name))

    def switching_cursor(self, name: str | None) -> SwitchingCursor:
        """Return a new `SwitchingCursor`. A subclass may return a server-side cursor if there is a name."""
        return SwitchingCursor(self)

    def connect(self) -> None:
        """Open a link to the side that the state asks for."""
        self.leave_closed_block()
        self.follow_settings()
        if self._autocommit_of_settings != self.settings_dict.get("AUTOCOMMIT", True):  # the setting was changed
            self._autocommit_of_settings = not self._autocommit_of_settings
            self._forget_block()
        self.select(self.route.pick())

    @contextmanager
    def temporary_connection(self) -> Iterator[Any]:
        """Run Django's own queries, such as for the server's version, on the side that the state asks for.

        They are not recorded as reads or writes of the application.
        """
        if self._is_direct:  # a link is being opened
            with self.cursor() as cursor:
                yield cursor
            return
        were_open = set(self._links.values())
        with self.wrap_database_errors:
            link = self.route.pick()
        with self._on(link):
            try:
                with self.cursor() as cursor:
                    yield cursor
            finally:
                if link not in were_open and not self.in_atomic_block:  # closing it would end the transaction
                    self.close_link(link)

    def served_by(self) -> dict[str, str]:
        """Return the side and the server of the statement that has just run, for Django's ``connection.queries``."""
        if self._is_direct:
            return {"db": self._server.state, "server": self._server.name}
        return {"db": self.route.side, "server": self._server.name}

    def _log_unsent(self, sql: str) -> None:
        """Log a statement now, as Django does. Send it only later, when the first link joins the transaction."""
        with debug_transaction(self, sql):
            pass
        if self.queries_logged:
            query: Any = self.queries_log[-1]
            query.served_by = {"db": self.state, "server": ""}
            self._unsent.append(query)

    # replswitch.engine.port.Port

    def join(self, link: Link) -> None:
        """Begin the running transaction on a link, and make the transaction's savepoints there."""
        held = self._links[link.server]
        with self._on(held):
            if self.autocommit:
                self.driver.begin(held.raw)
            else:
                self.begin_on(held)
            held.savepoints = self._savepoints
            self._execute_quietly(map(self.ops.savepoint_create_sql, self._savepoints))
        while self._unsent:
            self._unsent.pop().served_by = {"db": self.route.side, "server": link.server.name}

    def begin_on(self, link: Link) -> None:
        """Begin a transaction of Django on the selected link, or raise the driver's own error."""
        raise NotImplementedError

    def leave(self, link: Link) -> None:
        """Roll back on one link. If the rollback fails, close the link, so that the server rolls back.

        If another process opened the link, close it without a rollback (S12).
        """
        with suppress(self.Database.Error):
            if link.is_own:
                self.driver.rollback(link.raw)
                return
        self.close_link(link)

    def part_with(self, link: Link) -> None:
        """Do nothing, because `drop` closes the link."""

    def retire(self, server: Server) -> None:
        """Close the link to a server whose address is gone, unless a transaction or a cursor uses it."""
        held, block = self._links.get(server), self.route.block
        if held is not None and (block is None or held not in block) and not held.writes.streams:
            self.close_link(held)

    def lose_block(self, error: Exception) -> None:
        """Make Django refuse further statements until a rollback. In autocommit mode, `Route` refuses them."""
        if not self.autocommit:
            self.needs_rollback, self.rollback_exc = True, error

    # Beginning

    def get_autocommit(self) -> bool:
        """Return whether the application asked for autocommit mode. This opens no connection."""
        self.leave_closed_block()
        return bool(self.autocommit)

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        """Turn autocommit on or off. A link gets the new mode with its first statement."""
        if self._is_direct:  # a link is being opened
            self._set_autocommit(autocommit)
            return
        self.leave_closed_block()
        self.validate_no_atomic_block()
        if self.selected is not None and self.health_check_enabled and self.route.block is None:
            with suppress(self.Database.Error):  # on an error, the first statement opens a link, maybe elsewhere
                self.open(self.selected.server)
        if autocommit:
            if self._running().links:
                self._commit()  # as MySQL does
            for link in tuple(self._links.values()):
                try:
                    with self._on(link):
                        self._set_autocommit(True)
                except Error:
                    self.close_link(link)
            self.route.end()
            self._savepoints = ()
        else:
            self._log_unsent("BEGIN")
            if self.route.block is None:
                self.route.begin(Block())
            for joined in self._running().links:  # a statement of the application has begun this transaction
                with self._on(joined), self.wrap_database_errors:
                    self.begin_on(joined)
        self.autocommit = autocommit
        if autocommit and self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False

    # Ending

    def _commit(self) -> None:
        block = self._end_block()
        with debug_transaction(self, "COMMIT") if block.links else nullcontext(), self.wrap_database_errors:
            self.route.commit(block)

    def _rollback(self) -> None:
        block = self._end_block()
        with debug_transaction(self, "ROLLBACK") if block.links else nullcontext():
            self.route.roll_back(block)
        self.rollback_exc = None  # break the cycle, if the error refers to frames that refer to this object

    def _end_block(self) -> Block:
        """End the transaction and return it. With autocommit off, begin the next one."""
        block, self._savepoints = self.route.end() or Block(), ()
        self._unsent.clear()
        if not self.autocommit:
            self.route.begin(Block())
        return block

    def _running(self) -> Block:
        """Return the running transaction; an empty `Block` if there is none.

        Raises:
            Error: the error that has ended the transaction early, if there is one.
        """
        block = self.route.block or Block()
        with self.wrap_database_errors:
            self.route.refuse_if_lost(block)
        return block

    # Savepoints

    def _savepoint(self, sid: str) -> None:
        block, self._savepoints = self._running(), (*self._savepoints, sid)
        self._on_block(block, self.ops.savepoint_create_sql(sid))

    def _savepoint_rollback(self, sid: str) -> None:
        block = self._running()
        if sid in self._savepoints:
            self._savepoints = self._savepoints[: self._savepoints.index(sid) + 1]
            for link in list(block.links):
                if sid in self._links[link.server].savepoints:  # it joined after the savepoint, so undo all of its work
                    block.links.remove(link)
                    self.leave(link)
                    self.route.forget()
            if all(getattr(atomic, "_from_testcase", False) for atomic in self.atomic_blocks):
                block.has_read = False  # a test has ended. An application might still use what it read
        elif not block.links:
            self.select(self.route.for_statement())  # with a link, the database reports the unknown savepoint
        self._on_block(block, self.ops.savepoint_rollback_sql(sid))

    def _savepoint_commit(self, sid: str) -> None:
        block = self._running()
        if sid in self._savepoints:
            self._savepoints = self._savepoints[: self._savepoints.index(sid)]
        self._on_block(block, self.ops.savepoint_commit_sql(sid))

    def _on_block(self, block: Block, sql: str) -> None:
        """Run a statement on every link in the transaction. Log it once, as with one link."""
        links = tuple(block.links)
        if not links:
            self._log_unsent(sql)
        for link in links:
            try:
                with self._on(link):
                    if link is links[0]:
                        with self.cursor() as cursor:
                            cursor.execute(sql)
                    else:
                        with self.wrap_database_errors:
                            self._execute_quietly([sql])
            except Error as error:
                cause = self.driver_error(error)
                if cause is error or self.route.failed(Attempt(), link, cause) is None:
                    raise

    def _execute_quietly(self, statements: Iterable[str]) -> None:
        """Run statements on the selected link without logging them."""
        with closing(self.create_cursor()) as cursor:
            for sql in statements:
                cursor.execute(sql)

    # Closing

    @async_unsafe
    def close(self) -> None:
        """Close every link. Outside an atomic block, this ends the transaction."""
        self.validate_thread_sharing()
        if self._is_direct:  # Django is closing the selected link
            if self.selected is not None:
                self.close_link(self.selected)
            return
        _settled()
        self.leave_closed_block()
        self.run_on_commit = []
        is_open = bool(self._links)
        for link in tuple(self._links.values()):
            self.close_link(link)
        if not self.in_atomic_block:
            self._forget_block()
        elif is_open and (block := self.route.block) is not None:
            self.closed_in_transaction = self.needs_rollback = True
            block.lost = ProgrammingError("The connection was closed in this atomic block. Run no more queries in it.")

    def close_if_unusable_or_obsolete(self) -> None:
        """Close each link that has failed or is too old. Django calls this before and after each request."""
        route = vars(self).get("route")
        if route is None:
            return  # nothing was opened
        is_begun = route.block is not None and self.autocommit
        if stack() is not None and _settled() is not None and (is_begun or self.in_atomic_block):
            return  # a request inside another request begins or ends
        if is_begun or self.autocommit != self.settings_dict["AUTOCOMMIT"]:
            self.close()  # an open transaction or a changed mode must not reach another request
            return
        if route.link is not None:
            route.leave_scope()
        attributes, process, now = vars(self), getpid(), time.monotonic()
        for link in tuple(self._links.values()):
            # Do what Django does, but without selecting the link. This is faster, and it runs twice in each request.
            known = attributes if link is self.selected else link.parked
            known["health_check_done"] = False
            obsolete = known["close_at"] is not None and now >= known["close_at"]
            if obsolete or link.process != process:
                self.close_link(link)
            elif known["errors_occurred"]:
                with self._on(link):
                    super().close_if_unusable_or_obsolete()

    def leave_closed_block(self) -> None:
        """Reset the state after an atomic block in which the connection was closed, like Django's ``connect()``."""
        if self.closed_in_transaction and not self.in_atomic_block:
            self._forget_block()

    def _forget_block(self) -> None:
        self.closed_in_transaction = self.needs_rollback = False
        self.savepoint_ids, self.atomic_blocks, self.run_on_commit = [], [], []
        self.autocommit = self.settings_dict.get("AUTOCOMMIT", True)
        if "route" in vars(self):
            self._end_block().lost = self.rollback_exc = None  # see `_rollback`


def _settled() -> Scope | None:
    """Find out what the running request has written, because its links are about to be closed.

    Return the scope of the request; None outside a request.
    """
    frame = stack()
    if frame is None or not frame.scope.is_request:
        return None
    frame.scope.settle()
    return frame.scope
