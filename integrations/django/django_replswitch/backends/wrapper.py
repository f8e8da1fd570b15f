"""The mixin that makes a Django backend switch: `SwitchingWrapper`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS

from django_replswitch.backends.transactions import TransactionWrapper
from django_replswitch.conf import moves_writes
from django_replswitch.recording import is_recording
from replswitch import MASTER, SLAVE
from replswitch.state import stack

if TYPE_CHECKING:
    from django_replswitch.backends.links import Link
    from replswitch.scope import Scope


class SwitchingWrapper(TransactionWrapper):
    """A mixin in front of a backend's ``DatabaseWrapper``: records writes, and moves those that a slave refused.

    What the backend's driver says it has to explain; see the methods at the end.
    """

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        self._read_in: Scope | None = None  # the latest scope that has read from a slave

    def look_for_writes(self, link: Link, *, has_rows: bool = False) -> None:
        """Record in the running scope that a statement of the application committed a write on the master (M1)."""
        if self._only is None and link is self._master and (connection := self._connection_of(link)) is not None:
            if not self.autocommit and is_recording() and self._may_have_written is not True:
                self._may_have_written = None if has_rows else True
            in_transaction = not self.autocommit
            self._record(written=self._take_written(connection, in_transaction=in_transaction, has_rows=has_rows))

    def look_for_late_writes(self, link: Link) -> None:
        """Look again when a cursor is closed: some statements write with the last row that is fetched from them."""
        if self._tells_of_writes:
            self.look_for_writes(link)

    def note_read(self, link: Link) -> None:
        """Remember that the application has read rows."""
        if self._only is not None:
            return
        link.read = True
        if link.server.state == SLAVE:
            frame = stack()
            self._read_in = None if frame is None else frame.scope

    def link_after_failure(self, link: Link, error: Exception) -> Link | None:
        """Return the link on which a statement that a slave has failed may run again; None where it may not.

        A write that the slave refused may run on the master (S8), and a read outside a transaction anywhere (F1).

        Raises:
            SlaveWriteError: it may not.
        """
        if self._only is not None:
            return None
        if link.server.state == MASTER:
            if self._is_unreachable(error):
                self._record(written=True)  # nobody knows whether it was committed
            return None
        if link not in self._block and self._is_lost_slave(link, error):
            self._close_link(link)
            return self.link_for_statement()
        if not self.is_refused_write(error):
            return None
        frame = stack()
        self._database.move_writes = moves_writes()
        self._database.move_write(
            error,
            link.server.name,
            scope_has_read=frame is not None and self._read_in is frame.scope,
            transaction_has_read=link in self._block and link.read,
        )
        if link in self._block:
            self._leave_block(link)
        return self.link_for_statement()
