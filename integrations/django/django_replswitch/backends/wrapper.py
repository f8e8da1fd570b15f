"""The mixin that makes a Django backend switch: `SwitchingWrapper`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_replswitch.backends.transactions import TransactionWrapper
from django_replswitch.recording import is_recording
from replswitch import MASTER, SLAVE, NoServerError
from replswitch.database import READER, no_master
from replswitch.drivers import Written
from replswitch.state import stack

if TYPE_CHECKING:
    from collections import Counter

    from django_replswitch.backends.links import Link


class SwitchingWrapper(TransactionWrapper):
    """A mixin in front of a backend's ``DatabaseWrapper``: what becomes of a statement that has run, or failed."""

    def has_run(self, link: Link, *, has_rows: bool) -> None:
        """Note what a statement of the application has done: it may have written, or read what may be stale."""
        if self._only is not None:
            return  # it was Django's own
        if link is not self._master:
            if has_rows and self.side == SLAVE:
                self.has_read = True
                self._block_has_read = not self.autocommit
        elif link.raw is None:
            pass  # it is lost
        elif self.autocommit:
            if has_rows and not self._doubt.is_asked:
                return  # it will be asked about with those before it
            written = self.driver.take_written(link.raw)
            if written is not Written.NO:
                self._record(written)
        elif not self._block_counts:
            self._block_counts = is_recording()

    def has_ended(self, link: Link) -> None:
        """Note what the end of a result on the master tells."""
        if link.raw is not None and (self._doubt.is_asked or self.driver.learns_behind_rows(link.raw)):
            self.has_run(link, has_rows=False)

    def read_on(self, link: Link) -> None:
        """Read the answers that the statement before still owes (a procedure's further results)."""
        try:
            self.driver.read_on(link.raw)
        except self.Database.Error as error:
            self.refuse_late_write(link, error)
            raise

    def refuse_late_write(self, link: Link | None, error: BaseException) -> None:
        """Raise SlaveWriteError if a slave has refused a write whose procedure has returned rows already."""
        if link is not None and link.server.state == SLAVE and self.driver.refused_write(error):
            self._shared.database.refuse_late(error, link.server.name)

    def part_of(self, link: Link) -> str:
        """Return which state a link serves; `replswitch.database.READER` where it stands for the master's."""
        return READER if self.side == MASTER and link.server is self._shared.reader else link.server.state

    def link_after_failure(self, link: Link, error: Exception, failed: Counter[str], *, is_one: bool) -> Link | None:
        """Return the link on which a statement that failed may run again; None where it may not.

        A write that a slave refused may run on the master (S8), a read outside a transaction anywhere (F1), and what
        certainly did not run on the master once more.

        Args:
            link: where it ran.
            error: the driver's.
            failed: how often it has failed, by what `part_of` says.
            is_one: it is one statement; of several (``executemany``) some may have run.

        Raises:
            SlaveWriteError: it may not.
            NoServerError: the master is gone, or read-only.
        """
        if self._only is not None:
            return None
        if link is self._master:
            return self._link_after_master(link, error, is_first=is_one and failed[MASTER] == 1)
        if self.part_of(link) == READER and not self.driver.refused_write(error):
            return self._link_after_reader(link, error)
        is_enough = failed[SLAVE] > len(self._shared.slaves) + 1  # each, and whoever has the master's name
        if (failed[MASTER] or failed[READER]) and self.side == SLAVE:
            return self._link_after_both(link, error, is_enough=is_enough, may_have_run=bool(failed[MASTER]))
        if is_enough:
            return None
        database, in_transaction, frame = self._shared.database, link in self._block, stack()
        if self.driver.refused_write(error):
            database.move_write(
                error,
                link.server.name,
                scope_has_read=self.has_read,
                transaction_has_read=in_transaction and self._block_has_read,
            )
            if in_transaction:
                self._leave_block(link)
            return self.link_for_statement()
        if frame is None or not database.slaves.may_read_again(frame.scope, link, error, self) or in_transaction:
            return None
        self._chosen = None
        return self.link_for_statement()

    def _link_after_master(self, link: Link, error: Exception, *, is_first: bool) -> Link | None:
        database, in_transaction, name = self._shared.database, link in self._block, link.server.name
        if not self.driver.is_lost_master(error):
            self.has_run(link, has_rows=False)  # a procedure may have written before it failed
            return None
        may_read = False
        if not in_transaction:
            self._close_link(link)
        may_read = self.driver.unreachable(error) and bool(self._readers_without_master())
        reading = self._link_without_master() if may_read else None
        if reading is not None:
            self._shared.database.tell_of_lost_master(link.server.name, error)
            return reading
        try:
            may_run_again = database.may_run_again(
                self.driver, name, error, is_first=is_first, in_transaction=in_transaction
            )
        except NoServerError as read_only:
            raise self.no_master(read_only) from error
        if may_run_again:
            return self.link_for_statement()
        if may_read:
            raise self.no_master(no_master(link.server.name, error)) from error
        return None

    def _link_after_reader(self, link: Link, error: Exception) -> Link | None:
        """The same for a link to the master that refuses writes."""
        if not self.driver.unreachable(error):
            return None
        self._close_link(link)
        self._shared.database.tell_of_lost_master(link.server.name, error)
        reading = self._link_without_master()
        if reading is None:
            raise self.no_master(no_master(link.server.name, error)) from error
        return reading

    def _link_after_both(self, link: Link, error: Exception, *, is_enough: bool, may_have_run: bool) -> Link | None:
        """The same for one that the master has failed first: it must not run there again, because it may be a write."""
        frame, database, master = stack(), self._shared.database, self._shared.master.name
        if self.driver.refused_write(error):
            if not may_have_run:
                raise self.no_master(no_master(master, error)) from error
            try:
                database.refuse_lost_write(error, master)
            except NoServerError as lost:
                raise self.no_master(lost) from error
        if frame is None or not database.slaves.may_read_again(frame.scope, link, error, self):
            return None
        reading = None if is_enough else self._link_without_master()
        if reading is None:
            if may_have_run:
                database.record_write()
            raise self.no_master(no_master(master, error)) from error
        return reading
