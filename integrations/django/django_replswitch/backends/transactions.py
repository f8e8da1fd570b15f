"""The transaction belongs to the database: a link joins it with its first statement, and all end together (S5)."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, Error
from django.db.backends.utils import debug_transaction

from django_replswitch.backends.selection import SelectingWrapper
from django_replswitch.recording import is_recording
from replswitch.drivers import Written
from replswitch.writes import SETTLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django_replswitch.backends.links import Link
    from replswitch.positions import Position


class TransactionWrapper(SelectingWrapper):
    """Keeps Django's bookkeeping of a transaction for all its links."""

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        self.autocommit = settings_dict.get("AUTOCOMMIT", True)
        self._savepoints: list[str] = []  # of the running transaction, for links that join later
        self._begins_explicitly = False
        self._block_counts = False  # on the master it has run statements of the application, not only a session's
        self._block_has_read = False  # it has read rows from a slave

    def connect(self) -> None:
        """Open the link of the side that is wanted."""
        if self._only is None:
            self._leave_closed_block()
        super().connect()

    def _leave_closed_block(self) -> None:
        """Begin anew behind a block whose connections were closed in it, as Django does when it connects again."""
        if self.closed_in_transaction and not self.in_atomic_block:
            self.closed_in_transaction = self.needs_rollback = False
            self.savepoint_ids, self.atomic_blocks, self.run_on_commit = [], [], []
            self.connection = None
            for link in self._links.values():
                link.raw = link.parked["connection"] = None
            self._forget_block()

    def close(self) -> None:
        """Close every link; outside an atomic block, what was begun on them is over."""
        self._leave_closed_block()
        super().close()
        if not self.in_atomic_block:
            self._forget_block()

    def get_autocommit(self) -> bool:
        """Return the mode that the application asked for. No connection is opened to know it."""
        if self.closed_in_transaction:
            self._leave_closed_block()
        return bool(self.autocommit)

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        """Turn autocommit on or off. A link hears of it with its first statement."""
        if self._only is not None:  # a link that is being opened
            self._set_autocommit(autocommit)
            self.autocommit = autocommit
            return
        self.validate_no_atomic_block()
        self._chosen = None
        is_connected = self.connection is not None
        self.close_if_health_check_failed()
        if is_connected and self.connection is None:
            with self.wrap_database_errors:
                self._make_ready(self._link)
        self._begins_explicitly = force_begin_transaction_with_broken_autocommit and hasattr(
            self, "_start_transaction_under_autocommit"
        )
        if autocommit:
            for link in self._links.values():
                if not link.autocommit and link.raw is not None:
                    with self._on(link):
                        self._set_autocommit(True)
                    link.autocommit = True
            counts = self._block_counts
            self._forget_block()
            self.look_for_writes(block_counts=counts)  # what was open is committed
        else:
            with debug_transaction(self, "BEGIN"):
                pass  # said now, as Django does; done with the first statement
        self.autocommit = autocommit
        if autocommit and self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False

    def _join(self, link: Link) -> None:
        with self._on(link):
            if self._begins_explicitly:
                self._start_transaction_under_autocommit()
            elif link.autocommit:
                self._set_autocommit(False)
                link.autocommit = False
            self._block.append(link)
            link.savepoints = tuple(self._savepoints)
            self._execute_quietly(map(self.ops.savepoint_create_sql, self._savepoints))

    def _clear_block(self) -> None:
        self._block.clear()
        self._savepoints.clear()
        self._chosen, self._block_counts, self._block_has_read = None, False, False

    def _forget_block(self) -> None:
        self._clear_block()
        self.autocommit = self.settings_dict.get("AUTOCOMMIT", True)

    def look_for_writes(self, *, block_counts: bool = True) -> None:
        """Record in the running scope what was committed on the master since this was last asked (M1).

        Args:
            block_counts: False for a block in which a session alone has written, which makes no marker.
        """
        raw = self._master.raw
        written = Written.NO if raw is None else self.driver.take_written(raw)
        if written is not Written.NO:
            self._record(written, counts=block_counts)

    def _record(self, written: Position | Written, *, counts: bool = True) -> None:
        raw = self._master.raw
        if counts and is_recording():
            scope = self._scope
            stays = scope is not None and scope.pins is self._pins and self._chosen is self._master
            self._doubt = self._shared.database.record_told(self._master, self.driver, raw, written)
            if stays and scope is not None and not self._doubt.is_asked:
                self._pins = scope.pins  # changed only for those who read from a slave
        else:
            self.driver.disown_written(raw, with_rows=False)
            self._doubt = SETTLED

    def _commit(self) -> None:
        in_block, counts = self._master in self._block, self._block_counts or self.autocommit
        try:
            self._end(super()._commit)
        except Error:
            if in_block:
                self._shared.database.record_write()  # nobody knows whether it was committed
            raise
        self.look_for_writes(block_counts=counts)

    def _rollback(self) -> None:
        counts = self._block_counts or self.autocommit
        self._end(super()._rollback)
        self.look_for_writes(block_counts=counts)  # of what cannot be rolled back

    def _end(self, end: Callable[[], None]) -> None:
        if self.autocommit and not self._block:
            end()  # whatever the application began by a statement of its own
            return
        # The slaves first: they only let their snapshots go, for which SQLite's master may have to wait.
        for link in sorted(self._block, key=lambda link: link is self._master):
            try:
                with self._on(link):
                    end()
            except Error:
                if link is self._master or self._master not in self._block:
                    raise
                self._close_link(link)  # the outcome is the master's
        self._clear_block()

    def _savepoint(self, sid: str) -> None:
        self._savepoints.append(sid)
        self._on_block(super()._savepoint, sid, self.ops.savepoint_create_sql(sid))

    def _savepoint_rollback(self, sid: str) -> None:
        if sid in self._savepoints:
            del self._savepoints[self._savepoints.index(sid) + 1 :]
            for link in [link for link in self._block if sid in link.savepoints]:
                self._leave_block(link)  # all that it did is undone: it joined behind the savepoint
            if all(getattr(block, "_from_testcase", False) for block in self.atomic_blocks):
                self._block_has_read = False  # a test has ended; an application may have kept what it read
        self._on_block(super()._savepoint_rollback, sid, self.ops.savepoint_rollback_sql(sid))

    def _leave_block(self, link: Link) -> None:
        with self._on(link), self.wrap_database_errors:
            self.connection.rollback()
        self._block.remove(link)
        self._chosen = None

    def _savepoint_commit(self, sid: str) -> None:
        if sid in self._savepoints:
            del self._savepoints[self._savepoints.index(sid) :]
        self._on_block(super()._savepoint_commit, sid, self.ops.savepoint_commit_sql(sid))

    def _on_block(self, run: Callable[[str], None], sid: str, sql: str) -> None:
        """Run a statement on every link in the transaction; it is logged once, as it would be with one link."""
        if not self._block:
            with debug_transaction(self, sql):
                pass  # said now; done on a link that joins, where it still matters
            return
        first, *others = self._block
        with self._on(first):
            run(sid)
        for link in others:
            with self._on(link):
                self._execute_quietly([sql])

    def _execute_quietly(self, statements: Iterable[str]) -> None:
        """Run statements on the selected link without a place in the log of queries."""
        with self.wrap_database_errors, closing(self.create_link_cursor(None)) as cursor:
            for sql in statements:
                cursor.execute(sql)
