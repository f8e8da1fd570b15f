"""The mixin that makes a Django backend switch: `SwitchingWrapper`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_replswitch.backends.transactions import TransactionWrapper
from django_replswitch.recording import is_recording
from replswitch import NoServerError
from replswitch.drivers import Written
from replswitch.state import stack

if TYPE_CHECKING:
    from django_replswitch.backends.links import Link


class SwitchingWrapper(TransactionWrapper):
    """A mixin in front of a backend's ``DatabaseWrapper``: what becomes of a statement that has run, or failed."""

    def has_run(self, link: Link, *, has_rows: bool) -> None:
        """Note what a statement of the application has done: it may have written, or read what may be stale."""
        if self._only is not None:
            return  # it was Django's own
        if link is not self._master:
            if has_rows:
                link.read = self.has_read = True
        elif link.raw is None:
            pass  # it is lost
        elif self.autocommit:
            written = self.driver.take_written(link.raw)
            if written is not Written.NO:
                self._record(written)
        elif not self._block_counts:
            self._block_counts = is_recording()

    def link_after_failure(self, link: Link, error: Exception, *, is_first: bool) -> Link | None:
        """Return the link on which a statement that failed may run again; None where it may not.

        A write that a slave refused may run on the master (S8), a read outside a transaction anywhere (F1), and what
        certainly did not run on the master once more.

        Args:
            link: where it ran.
            error: the driver's.
            is_first: it has not run on the master before.

        Raises:
            SlaveWriteError: it may not.
            NoServerError: the master is read-only.
        """
        if self._only is not None:
            return None
        if link is self._master:
            return self._link_after_master(link, error, is_first=is_first)
        database, in_transaction, frame = self._shared.database, link in self._block, stack()
        if self.driver.refused_write(error):
            database.move_write(
                error,
                link.server.name,
                scope_has_read=self.has_read,
                transaction_has_read=in_transaction and link.read,
            )
            if in_transaction:
                self._leave_block(link)
            return self.link_for_statement()
        if frame is None or not database.slaves.may_read_again(frame.scope, link, error, self) or in_transaction:
            return None
        return self.link_for_statement()

    def _link_after_master(self, link: Link, error: Exception, *, is_first: bool) -> Link | None:
        in_transaction = link in self._block
        if not self.driver.is_lost_master(error):
            self.has_run(link, has_rows=False)  # a procedure may have written before it failed
            return None
        if not in_transaction:
            self._close_link(link)
        try:
            may_run_again = self._shared.database.may_run_again(
                self.driver, link.server.name, error, is_first=is_first, in_transaction=in_transaction
            )
        except NoServerError as read_only:
            raise self.no_master(read_only) from error
        return self.link_for_statement() if may_run_again else None
