"""Django's connection object, on several physical connections that take turns in it.

Whatever belongs to one physical connection is exchanged when another one works (`links.LINK_ATTRIBUTES`); at any
moment the wrapper looks like a stock one that is connected to the selected server.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from django.db import DEFAULT_DB_ALIAS, OperationalError, ProgrammingError
from django.db.backends.base.base import NO_DB_ALIAS

from django_replswitch.backends.cursor import SwitchingCursor
from django_replswitch.backends.links import LINK_ATTRIBUTES, Link, servers_of
from django_replswitch.backends.queries import QueriesLog
from django_replswitch.backends.stock import StockWrapper
from django_replswitch.recording import is_recording
from replswitch import MASTER, SLAVE, State, Switch
from replswitch.database import Database
from replswitch.state import Frame, stack

if TYPE_CHECKING:
    from collections.abc import Iterator

# One for an alias, shared by the connections that threads have under it.
_switches: Final[dict[str, Switch]] = {}

# The NAME of each alias as it was configured; a test run changes it in the settings themselves.
_names: Final[dict[str, object]] = {}


class AliasSwitch(Switch):
    """The switch of an alias. Its connections record what they commit."""

    records_writes = True


class SelectingWrapper(StockWrapper):
    """Selects the link that a statement runs on, and connects and closes all of them."""

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        _names.setdefault(alias, settings_dict.get("NAME"))
        self.switch = _switches.setdefault(alias, AliasSwitch())
        self.queries_log = QueriesLog(self.queries_limit, self.served_by)
        self.side: State = MASTER
        self._database = Database(self.switch, alias)
        master, self._slaves = servers_of(settings_dict, alias)
        self._master = self._link = Link(master)
        self._links = {master: self._master}
        self._block: list[Link] = []  # the links in the running transaction
        self._only: Link | None = None  # statements of ours run there, whatever the state
        self._noted: tuple[Frame | None, Link | None] = (None, None)

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

    # Choosing a link

    def link_for_statement(self) -> Link:
        """Select the link for the next statement, connected and in the running transaction."""
        if self._only is not None:
            return self._only
        if self.closed_in_transaction:
            if self.in_atomic_block:
                raise ProgrammingError("The connection was closed inside this atomic block. Leave the block first.")
            self._leave_closed_block()
        side, why = self._side()
        link = self._select(self._link_of(side))
        if link not in self._block:
            link = self._ready(link)
            self._join(link)
        self.side = side
        if link.server.state != side and not self._shares_link():
            self.side, why = MASTER, "no-slave"
        frame = stack()
        if frame is not None and self._noted != (frame, link):
            self._noted = (frame, link)
            if link is self._master and frame.scope.is_safe and is_recording():
                self.before_doubt()
            self._database.note(frame, self.side, link.server.name, why)
        return link

    def _ready(self, link: Link) -> Link:
        """Connect the selected link; where a slave cannot be reached, another one, and last the master (F1)."""
        self.close_if_health_check_failed()
        while True:
            try:
                self.ensure_connection()
            except OperationalError as error:
                if not self._is_lost_slave(link, error.__cause__):
                    raise
                link = self._select(self._link_of(SLAVE))
            else:
                return link

    def _is_lost_slave(self, link: Link, error: BaseException | None) -> bool:
        """Say whether a slave cannot be reached, and leave it alone for the rest of the scope if so."""
        frame = stack()
        if frame is None or error is None or link.server.state == MASTER or not self._is_unreachable(error):
            return False
        self._database.lose_slave(frame.scope, link.server, link.server.name, error)
        return True

    def _leave_closed_block(self) -> None:
        """Begin anew behind a block whose connections were closed in it."""

    def _join(self, link: Link) -> None:
        """Take the selected link into the running transaction."""

    def _side(self) -> tuple[State, str | None]:
        return self._database.side(in_master_transaction=self._master in self._block)

    def _link_of(self, side: State) -> Link:
        frame = stack()
        if side == MASTER or frame is None or self.alias == NO_DB_ALIAS or self._shares_link():
            return self._master
        scope = frame.scope
        server = scope.slave(self.alias)
        if server not in self._slaves:
            joined = [link.server for link in self._block if link.server.state == SLAVE]
            fit = joined or self._database.slaves_to_try(scope, self._slaves)
            if not fit:
                self._database.lack_slaves(scope)
                return self._master
            server = scope.choose_slave(self.alias, fit[0])
        link = self._links.get(server)
        if link is None:
            link = self._links[server] = Link(server)
        return link

    def _shares_link(self) -> bool:
        """Whether both sides must be one connection, as with a database in memory."""
        return False

    def _select(self, link: Link) -> Link:
        selected = self._link
        if link is not selected:
            for name in LINK_ATTRIBUTES:
                selected.parked[name] = getattr(self, name)
                setattr(self, name, link.parked[name])
            self._link = link
        return link

    @contextmanager
    def _on(self, link: Link) -> Iterator[None]:
        """Run statements of ours on one link."""
        before, only = self._link, self._only
        self._only = self._select(link)
        try:
            yield
        finally:
            self._only = only
            self._select(before)

    # Cursors

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor that chooses its side with each statement."""
        return SwitchingCursor(self, name)

    def _cursor(self, name: str | None = None) -> Any:
        """Return a cursor; where no side is connected yet, connect the one that is wanted, as Django does."""
        if self._only is None and not self.closed_in_transaction:
            link = self._select(self._link_of(self._side()[0]))
            if link not in self._block:
                self._ready(link)
        else:
            self.ensure_connection()
        with self.wrap_database_errors:
            return self._prepare_cursor(self.create_cursor(name))

    def create_link_cursor(self, name: str | None) -> Any:
        """Return a cursor of the backend's own on the selected link."""
        return super().create_cursor(name)

    @contextmanager
    def temporary_connection(self) -> Iterator[Any]:
        """Run what Django asks for itself, such as the server's version, on the side that is wanted.

        The application has neither read nor written by it.
        """
        link = self._link if self._only is not None else self._link_of(self._side()[0])
        with self._on(link):
            if self.in_atomic_block:
                self.ensure_connection()  # and so it is not closed again, which would break the block
            with super().temporary_connection() as cursor:
                yield cursor

    # Connecting

    def connect(self) -> None:
        """Open the link of the side that is wanted."""
        if self._only is None:
            selected = self._link
            if self._select(self._link_of(self._side()[0])) is not selected and self.connection is not None:
                return
        link = self._link
        with self._on(link):
            super().connect()
        link.autocommit = self.settings_dict["AUTOCOMMIT"]

    def get_connection_params(self) -> dict[str, Any]:
        """Return the parameters of the selected server."""
        alias_settings = self.settings_dict
        self.settings_dict = self._link.server.merged(alias_settings, _names[self.alias])
        try:
            params: dict[str, Any] = super().get_connection_params()
        finally:
            self.settings_dict = alias_settings
        return params

    @property
    def _is_slave(self) -> bool:
        return self._link.server.state == SLAVE

    # Closing

    def close(self) -> None:
        """Close every link."""
        self.validate_thread_sharing()
        if self._only is None:
            for link in self._links.values():
                if link is not self._link and link.parked["connection"] is not None:
                    self._close_link(link)
        super().close()

    def close_if_health_check_failed(self) -> None:
        """Close the selected link if it does not answer; it is in no transaction yet."""
        if self.connection is not None and self.health_check_enabled and not self.health_check_done:
            if not self.is_usable():
                self._close_link(self._link)
            self.health_check_done = True

    def _close_link(self, link: Link) -> None:
        with self._on(link):
            try:
                self._close()
            finally:
                self.connection = None

    def close_if_unusable_or_obsolete(self) -> None:
        """Close the links that have failed or are too old; each by itself."""
        if self.autocommit != self.settings_dict["AUTOCOMMIT"]:
            self.close()  # as Django does: what the application left open is nobody's any more
            return
        for link in tuple(self._links.values()):
            with self._on(link):
                super().close_if_unusable_or_obsolete()

    def _record(self, *, written: bool | None) -> None:
        """Record in the running scope that the application committed a write on the master, if it did (M1).

        Args:
            written: None where nobody knows.
        """
        if written is False or not is_recording():
            return
        if written is None:
            self._database.suspect_write()
        else:
            self._database.record_write()

    def before_doubt(self) -> None:
        """Prepare to find out whether the next statement on the master has written."""

    def settle(self) -> None:
        """Find out whether a statement that may have written did, and record it."""

    # What the backend knows: each fills these in

    #: Whether the driver tells of writes; where it does not, a statement that returns no rows counts as one.
    _tells_of_writes = True

    def _take_written(self, connection: Any, *, in_transaction: bool, has_rows: bool = False) -> bool | None:
        """Say whether a write was committed on the master since the question was last asked.

        Args:
            connection: the driver's.
            in_transaction: the statement belongs to a transaction that is still open.
            has_rows: the statement has returned rows, as most that only read do.

        Returns:
            None where nobody knows.
        """
        raise NotImplementedError

    def is_refused_write(self, error: BaseException) -> bool:
        """Say whether a driver's error means that a read-only connection refused a write."""
        raise NotImplementedError

    def _is_unreachable(self, error: BaseException) -> bool:
        """Say whether a driver's error means that the server is not there, or the connection to it gone."""
        raise NotImplementedError

    # What ran

    def served_by(self) -> dict[str, str]:
        """Return the side and the server of the statement that has just run, as ``queries`` tells them."""
        server = self._link.server
        return {"db": self.side if self._only is None else server.state, "server": server.name}
