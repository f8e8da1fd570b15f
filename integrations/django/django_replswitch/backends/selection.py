"""Which link a statement runs on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, ProgrammingError
from django.db import Error as DjangoError
from django.db.backends.base.base import NO_DB_ALIAS

from django_replswitch.backends.cursor import SwitchingCursor
from django_replswitch.backends.queries import QueriesLog
from django_replswitch.backends.reaching import ReachingWrapper
from django_replswitch.backends.replicated import switch_of
from django_replswitch.recording import is_recording
from replswitch import MASTER, SLAVE, NoServerError, State
from replswitch.state import Frame, get_stack, stack
from replswitch.writes import SETTLED

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from django_replswitch.backends.links import Link
    from replswitch.positions import Position
    from replswitch.scope import Scope
    from replswitch.writes import Doubt, NoDoubt


class SelectingWrapper(ReachingWrapper):
    """Selects the link that a statement runs on."""

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        self.switch = switch_of(alias)
        self.queries_log = QueriesLog(self.queries_limit, self.served_by)
        self.side: State = MASTER
        self.has_read = False  # the running scope, `_scope`, has read rows from a slave
        self._scope: Scope | None = None
        self._noted: Link | None = None  # what was written down in `_frame`'s scope last
        # What the latest choice was made of: while it is the same, and `_chosen` is there, so is the choice.
        self._frame: Frame | None = None
        self._pins: Mapping[Hashable, str] | None = None
        self._doubt: Doubt | NoDoubt = SETTLED  # about what has run on the master since that choice
        self._slave_has: Position | None = None  # how far the slave had come, at least, when its link was chosen

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
        """Select the link for the next statement, connected and in the running transaction.

        Mostly that of the statement before.

        Raises:
            Exception: the driver's own error; NoServerError where no server is left.
        """
        link, frame, scope = self._chosen, get_stack(), self._scope
        if (
            link is not None
            and frame is self._frame
            and (scope is None or scope.pins is self._pins)
            and (self.health_check_done or not self.health_check_enabled)
            and self.connection is not None
        ):
            return link
        return self._only or self._choose(frame)

    def _choose(self, frame: Frame | None) -> Link:
        scope = None if frame is None else frame.scope
        pins = None if scope is None else scope.pins  # what changes from here on is looked at the next time
        self._chosen, self._doubt = None, SETTLED
        if scope is not self._scope:
            self._scope, self.has_read = scope, False
        link, side, why = self._pick(frame)
        if scope is not None and link is self._master:
            self._count_from_here(scope)
        if not self.autocommit and link not in self._block and not self._joins(link, scope):
            return self._choose(frame)
        self.side = side
        if frame is not None and (frame is not self._frame or link is not self._noted):
            self._noted = link
            self._shared.database.note(frame.scope, side, link.server.name, why)
        self._chosen, self._frame, self._pins = link, frame, pins
        return link

    def _joins(self, link: Link, scope: Scope | None) -> bool:
        """Take a link into the transaction; False where that is a slave that has failed, and is left alone now."""
        try:
            self._join(link)
        except (DjangoError, self.Database.Error) as error:
            cause = error.__cause__ if isinstance(error, DjangoError) else error
            if link is self._master or scope is None or cause is None:
                raise
            if link in self._block:
                self._block.remove(link)
            if not self._shared.database.slaves.may_read_again(scope, link, cause, self):
                raise
            return False
        return True

    def _count_from_here(self, scope: Scope) -> None:
        """Tell what the scope writes on the master from what a session has written, which does not count (M1)."""
        if is_recording():
            self.driver.prepare(self._master.raw)
        elif scope.is_in_doubt:
            scope.settle()

    def _pick(self, frame: Frame | None) -> tuple[Link, State, str]:
        """Return the link that is wanted, open and selected, its side, and the reason for it."""
        if self.closed_in_transaction:
            if self.in_atomic_block:
                raise ProgrammingError("The connection was closed inside this atomic block. Leave the block first.")
            self._leave_closed_block()
        side, why = self._shared.database.side(in_master_transaction=self._master in self._block)
        link = self._master
        if side == SLAVE and frame is not None and self.alias != NO_DB_ALIAS and not self._shares_link():
            link, side, other = self._slave_link(frame.scope)
            why = other or why
        else:
            try:
                link = self._open_master() if frame is None else self._reading_link(frame.scope, why)
            except NoServerError:
                reading = self._link_without_master()
                if reading is None:
                    raise
                link, side, why = reading, SLAVE, "no-master"
        if link is not self._link:
            self._select(link)
        return link, side, why

    def _slave_link(self, scope: Scope) -> tuple[Link, State, str | None]:
        """Return a link to a slave that has what the scope must see; where none has, to the master, and the reason."""
        shared = self._shared
        database = shared.database
        must_see = database.slaves.must_see(scope)
        if (why := scope.pins.get(database.key)) is not None:  # found out just now
            return self._reading_link(scope, why), MASTER, why
        joined = [link for link in self._block if link.server.state == SLAVE] if self._block else None
        if joined:
            # It shows what it had when the transaction began: neither asking nor waiting would change that.
            if must_see is None or (self._slave_has is not None and self._slave_has.includes(must_see)):
                return joined[0], SLAVE, None
            return self._open_master(), MASTER, database.read_on_master(scope, database.slaves.lack(scope))
        link: Link | None = database.slaves.choose(scope, shared.slaves, must_see, self)
        if link is None:
            why = database.slaves.lack(scope)
            try:
                link = self._reading_link(scope, why)
            except NoServerError:
                link = self._link_without_master()
                if link is None:
                    raise
                return link, SLAVE, "no-master"
            else:
                return link, MASTER, database.read_on_master(scope, why)
        self._slave_has = must_see
        return link, SLAVE, None

    def _link_without_master(self) -> Link | None:
        """Return a link for a read that the master should serve, and cannot; None where no server has what it must see.

        To any slave, whatever its state, or to the server that has the master's name by now. It refuses writes.
        """
        frame, shared, servers = stack(), self._shared, self._readers_without_master()
        if frame is None or not servers:
            return None
        if shared.reader not in shared.slaves:
            self.drop(shared.reader)  # it leads to where the master was, and would take a time-out
        must_see = shared.database.slaves.must_see(frame.scope)
        link: Link | None = shared.database.slaves.choose(frame.scope, servers, must_see, self, is_last_resort=True)
        if link is not None:
            self._slave_has, self._chosen, self.side = must_see, None, SLAVE
            shared.database.note(frame.scope, SLAVE, link.server.name, "no-master")
            self._noted = link
        return link

    # For the classes in front

    def _leave_closed_block(self) -> None:
        """Begin anew behind a block whose connections were closed in it."""

    def _join(self, link: Link) -> None:
        """Take the selected link into the running transaction."""

    # Cursors

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor that chooses its side with each statement."""
        return SwitchingCursor(self, name)

    def _cursor(self, name: str | None = None) -> Any:
        """Return a cursor; where the side that is wanted is not connected yet, connect it, as Django does."""
        if self._only is not None or self.closed_in_transaction:
            self.ensure_connection()
        with self.wrap_database_errors:
            if self._only is None and (self._chosen is None or self.connection is None):
                if self.autocommit:
                    self.link_for_statement()
                else:
                    self._pick(stack())
            return self._prepare_cursor(self.create_cursor(name))

    def create_link_cursor(self, name: str | None) -> Any:
        """Return a cursor of the backend's own on the selected link."""
        return super().create_cursor(name)

    def error_of_stock(self, error: Exception) -> Exception:
        """Return what the backend's own cursor makes of an error that a link's cursor has raised."""
        return error

    @contextmanager
    def temporary_connection(self) -> Iterator[Any]:
        """Run what Django asks for itself, such as the server's version, on the side that is wanted.

        The application has neither read nor written by it.
        """
        link, is_open = self._only, True
        if link is None:
            were_open = [link for link in self._links.values() if link.raw is not None]
            with self.wrap_database_errors:
                link = self._pick(stack())[0]
            is_open = link in were_open
        with self._on(link):
            try:
                with self.cursor() as cursor:
                    yield cursor
            finally:
                if not (is_open or self.in_atomic_block):  # to close it would break the block
                    self._close_link(link)

    def connect(self) -> None:
        """Open the link of the side that is wanted."""
        if self._only is not None:
            super().connect()
        else:
            self._pick(stack())

    # What ran

    def served_by(self) -> dict[str, str]:
        """Return the side and the server of the statement that has just run, as ``queries`` tells them."""
        server = self._link.server
        return {"db": self.side if self._only is None else server.state, "server": server.name}
