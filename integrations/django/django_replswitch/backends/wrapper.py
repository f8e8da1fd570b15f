"""The mixin that makes a Django backend switch: `SwitchingWrapper`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS

from django_replswitch.backends.alias_state import switch_of
from django_replswitch.backends.cursor import SwitchingCursor
from django_replswitch.backends.queries import QueriesLog
from django_replswitch.backends.transactions import TransactionWrapper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_replswitch.backends.links import WrapperLink
    from replswitch import State
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.servers import Link
    from replswitch.state import Frame


class SwitchingWrapper(TransactionWrapper):
    """A mixin in front of a backend's ``DatabaseWrapper``: statements run where the route leads."""

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        self.switch = switch_of(alias)
        self.queries_log = QueriesLog(self.queries_limit, self.served_by)

    # Switching

    def use_master(self) -> Frame:
        """Use the master from now on. As ``with connection.use_master():`` only for the block."""
        return self.switch.use_master()

    def use_slave(self) -> Frame:
        """Use a slave from now on. As ``with connection.use_slave():`` only for the block."""
        return self.switch.use_slave()

    def revert(self) -> None:
        """Undo the latest of these; RevertError if there is none."""
        self.switch.revert()

    @property
    def state(self) -> State:
        """The side that the running code wants."""
        return self.switch.state

    @property
    def state_change_disabled(self) -> bool:
        """True: instructions given from now on are ignored for this alias; reverts stay balanced."""
        return self.switch.state_change_disabled

    @state_change_disabled.setter
    def state_change_disabled(self, disabled: bool) -> None:
        self.switch.state_change_disabled = disabled

    # Statements

    def link_for_statement(self) -> WrapperLink:
        """Select the link for the next statement, and return it.

        Raises:
            Exception: the driver's own error; NoMasterError where no server is left.
        """
        if self.closed_in_transaction:
            self.leave_closed_block()
        return self.select_again(self.route.for_statement())

    def select_again(self, link: Link) -> WrapperLink:
        """Select a link that is open."""
        held = self._links[link.server]
        self._select(held)
        return held

    def succeeded(self, link: Link, *, has_rows: bool) -> None:
        """Note what a statement has done, and follow the transaction that it may have begun or ended."""
        self.route.succeeded(link, has_rows=has_rows, follow=self.autocommit)

    def link_after_failure(self, attempt: Attempt, link: Link, error: Exception) -> WrapperLink | None:
        """Select the link on which a statement that has failed runs again, and return it; see `Route.failed`."""
        following = self.route.failed(attempt, link, error)
        return None if following is None else self.select_again(following)

    def raise_as_stock(self, error: Exception) -> None:
        """Raise what the backend's own cursor makes of an error, if that is another one."""

    # Cursors

    def _cursor(self, name: str | None = None) -> Any:
        """Return a cursor that chooses its link with each statement."""
        if self._is_direct:
            return super()._cursor(name)
        if self.connection is None:
            self.ensure_connection()
        return self._prepare_cursor(SwitchingCursor(self))

    def connect(self) -> None:
        """Open the link of the side that is wanted."""
        self.leave_closed_block()
        self.select_again(self.route.pick().link)

    @contextmanager
    def temporary_connection(self) -> Iterator[Any]:
        """Run what Django itself asks, such as the server's version, on the side that is wanted.

        The application has neither read nor written by it.
        """
        if self._is_direct:  # a link is being opened
            with self.cursor() as cursor:
                yield cursor
            return
        were_open = set(self._links.values())
        with self.wrap_database_errors:
            link = self._links[self.route.pick().link.server]
        with self._on(link):
            try:
                with self.cursor() as cursor:
                    yield cursor
            finally:
                if link not in were_open and not self.in_atomic_block:  # to close it would break the block
                    self.close_link(link)

    # What ran

    def served_by(self) -> dict[str, str]:
        """Return the side and the server of the statement that has just run, for ``queries``."""
        return {"db": self._server.state if self._is_direct else self.route.side, "server": self._server.name}
