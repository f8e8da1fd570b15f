"""Django's connection object with several physical connections, the links. One link is selected at a time.

When another link is selected, the attributes in `LINK_ATTRIBUTES` get the values of that link. So at any time the
object looks like Django's own connection object, connected to the selected server.
"""

from __future__ import annotations

import traceback
from contextlib import closing, contextmanager, suppress
from functools import cached_property, partial
from os import getpid
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, cast

from django.db import DEFAULT_DB_ALIAS, Error
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper

from django_replswitch.backends.configured import ConfiguredWrapper
from django_replswitch.backends.errors import NoMasterError, RefusedWriteError
from django_replswitch.backends.link import LINK_ATTRIBUTES, WrapperLink
from django_replswitch.servers import merged
from replswitch import MASTER, SLAVE, NoServerError, SlaveWriteError
from replswitch.connect.pool import close_raw
from replswitch.drivers import Written
from replswitch.engine.block import Block
from replswitch.engine.recording import is_recording
from replswitch.engine.writes import committed_elsewhere
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replswitch.drivers import Raw
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.port import Port
    from replswitch.engine.route import Route
    from replswitch.engine.servers import Link, Server
    from replswitch.engine.writes import Writes
    from replswitch.positions import Position
    from replswitch.scope import Scope

# The attributes that keep their values when a link is opened, because the transaction that they describe continues.
_KEPT: Final = (
    "_is_direct",
    "autocommit",
    "in_atomic_block",
    "savepoint_ids",
    "atomic_blocks",
    "needs_rollback",
    "closed_in_transaction",
    "run_on_commit",
)


class ConnectingWrapper(ConfiguredWrapper):
    """Opens and closes the links. It has the methods of `replswitch.engine.port.Port` that are about links.

    Attributes:
        one_link: see `replswitch.engine.port.Port`.
        selected: the link that the object uses now; None if no link is open.
    """

    one_link = False

    # Attributes of Django that the type stubs leave out.
    Database: Any
    health_check_enabled: bool
    health_check_done: bool
    rollback_exc: Any
    _cursor: Any
    _prepare_cursor: Any
    _set_autocommit: Any

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        if alias == NO_DB_ALIAS:
            self.one_link = True
        self.autocommit = self._autocommit_of_settings = settings_dict.get("AUTOCOMMIT", True)
        self._links: dict[Server, WrapperLink] = {}
        self.selected: WrapperLink | None = None
        self._server = self._shared.servers.master  # the selected server, also while its link is being opened
        self._is_direct = False  # whether statements run on the selected link in any state, as some of Django's do

    @cached_property
    def route(self) -> Route:
        """The route, which finds the link for each statement. It is made on first use, and then checks the options."""
        route = self._shared.make_route(cast("Port", self), self.parameters)
        if not self.autocommit:
            route.begin(Block())
        return route

    def follow_settings(self) -> None:
        """Before a link is opened, use the present settings, which a test run may have changed."""
        if not self._links and not self.in_atomic_block and self.read_settings():
            self._server = self._shared.servers.master
            vars(self).pop("route", None)

    def be_connected(self) -> None:
        """Open a link if none is open."""
        if vars(self)["connection"] is None:
            self.ensure_connection()
        elif BaseDatabaseWrapper.ensure_connection.__module__ != BaseDatabaseWrapper.__module__:
            # A tool has replaced Django's method. pytest-django does so to refuse access to the database.
            self._is_direct = True
            try:
                self.ensure_connection()
            finally:
                self._is_direct = False

    # Selecting a link
    def select(self, link: Link | None) -> None:
        """Select an open link, so that this object has the attributes of its connection. With None, select no link."""
        selected, attributes = self.selected, vars(self)
        if link is selected:
            return
        if selected is not None:
            selected.parked = {name: attributes[name] for name in LINK_ATTRIBUTES}
        self.selected = None if link is None else self._links[link.server]
        attributes.update(LINK_ATTRIBUTES if self.selected is None else self.selected.parked)
        if link is not None:
            self._server = link.server

    def use(self, link: Link) -> Link:
        """Select the link that was just chosen, and return it. If this link was closed meanwhile, choose another one.

        It may be closed at any time, because Python's garbage collector may free an object that then closes links.
        """
        while not self._is_open(link):
            self.route.forget()
            link = self.route.for_statement()
        self.select(link)
        return link

    @contextmanager
    def _on(self, link: Link) -> Iterator[None]:
        """Run the block's statements on one link, in any state. They are not recorded as changes of the session."""
        before, is_direct, changed = self.selected, self._is_direct, link.writes.session_changed
        self.select(link)
        self._is_direct = True
        try:
            yield
        finally:
            self._is_direct = is_direct
            link.writes.session_changed = changed
            self.select(before if self._is_open(before) else None)

    def _is_open(self, link: Link | None) -> bool:
        return link is not None and self._links.get(link.server) is link

    @property
    def connection(self) -> Any:
        """The driver's connection, on the side that the state asks for (S6).

        It is None before the first statement. In a transaction it is never None, because Django connects when the
        transaction begins. replswitch does not see the statements that the application runs on this object, so it looks
        for their writes later (M1).
        """
        raw = vars(self)["connection"]
        if self._is_direct or self.one_link:
            return raw
        if raw is None and not self._is_in_transaction():
            return None
        if stack() is None and self.selected is not None and self.selected.server.state == MASTER:
            return raw  # to choose again would only run a health check, which Django does not do here
        with self.wrap_database_errors:
            link = self.use(self.route.for_statement())
        frame, block = stack(), self.route.block
        if block is not None:  # replswitch looks for writes when the block ends
            block.has_run, block.is_recorded = True, block.is_recorded or is_recording()
        elif link.server.state == MASTER and frame is not None and ("own", link) not in frame.scope.pending:
            look = partial(_look, self._shared.database.writes, link, get_ident())
            frame.scope.add_pending(("own", link), look)
        return link.raw

    @connection.setter
    def connection(self, raw: Any) -> None:
        vars(self)["connection"] = raw

    def _is_in_transaction(self) -> bool:
        """Return whether a transaction that was begun through Django is open and can still be used."""
        if self.needs_rollback or self.closed_in_transaction:
            return False
        return self.in_atomic_block or self.autocommit != self._autocommit_of_settings

    # replswitch.engine.port.Port

    def open(self, server: Server) -> WrapperLink:
        """Return the open link to a server if it is alive. Otherwise open a new one."""
        link, block = self._links.get(server), self.route.block
        if link is None:
            return self._connect(server)
        if block is not None and link in block:
            return link
        writes = link.writes
        if writes.unread and writes.streams and link.process == getpid():  # a cursor is still reading from it (S6)
            del self._links[server]
            return self._connect(server)
        if link.process == getpid():
            if link is not self.selected:
                self.select(link)
            # Run Django's health check once in a request; after that, only look at the socket.
            is_healthy = not self.health_check_enabled or self.health_check_done or self.is_usable()
            self.health_check_done = is_healthy
            if is_healthy and (not link.readable(0) or self.driver.alive(link.raw) or self._has_unread(link)):
                return link
        self.close_link(link)
        return self._connect(server)

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close the open link to a server. Each server has at most one link, so there are no idle links to close."""
        held, block = self._links.get(server), self.route.block
        if held is not None and (held is link or (link is None and (block is None or held not in block))):
            self.close_link(held)

    def borrowed(self, server: Server) -> closing[Raw]:
        """Return a new connection as a context manager that closes it."""
        return closing(self.driver.open(self.parameters(server), read_only=server.state == SLAVE))

    def locate(self) -> Position | Written:
        """Query a position of the master that includes every commit so far, even those of other threads.

        If the driver cannot query such a position, return `Written.YES`.
        """
        if not self.driver.has_latest_position:
            return Written.YES
        master = self._shared.servers.master
        link = self._links.get(master)
        if link is not None and link.is_own and self.route.block is None and not link.writes.owes_results:
            with suppress(self.Database.Error):  # the server may have closed the connection
                return self.driver.latest_position(link.raw)
        with self.borrowed(master) as raw:
            return self.driver.latest_position(raw)

    def as_own(self, error: Exception) -> Exception:
        """Return replswitch's error as one that is also an error of Django. Return other errors unchanged."""
        if isinstance(error, SlaveWriteError):
            return RefusedWriteError(str(error), server=error.server, place=error.place)
        return NoMasterError(str(error), server=error.server) if isinstance(error, NoServerError) else error

    def has_read(self, attempt: Attempt | None) -> bool:
        """Return whether the transaction has read from a slave."""
        return self.route.block is not None and self.route.block.has_read

    # If functions of `on_commit` have run, the request must not run again, because they would run twice (R5).

    def run_and_clear_commit_hooks(self) -> None:
        """Run the functions of ``on_commit``, and record that they have run."""
        if self.run_on_commit:
            committed_elsewhere()
        super().run_and_clear_commit_hooks()

    def on_commit(self, func: Any, robust: bool = False) -> None:
        """Call a function after the commit or, outside a transaction, at once."""
        if not self.in_atomic_block and self.get_autocommit():
            committed_elsewhere()
        super().on_commit(func, robust)

    # Opening

    def is_usable(self) -> bool:
        """Ping the selected link, and return whether it answers."""
        is_direct, self._is_direct = self._is_direct, True
        try:
            return bool(super().is_usable())
        finally:
            self._is_direct = is_direct

    def _has_unread(self, link: WrapperLink) -> bool:
        """Return whether a link is alive and only had unread results. This method reads them."""
        with suppress(self.Database.Error):
            self.route.drain(link)
            return self.driver.alive(link.raw)
        return False

    def _connect(self, server: Server) -> WrapperLink:
        """Open a link as Django does, and select it.

        Raises:
            Exception: the driver's own error, which is not wrapped in an error of Django.
        """
        attributes = vars(self)
        kept = {name: attributes[name] for name in (*_KEPT, "settings_dict")}
        failed: Exception | None = None
        self.select(None)
        self._server, self._is_direct = server, True
        self.settings_dict = merged(server, self.settings_dict, self.alias)
        try:
            super().connect()
        except Exception as error:  # noqa: BLE001 - raised below
            # PyMySQL keeps its error in a frame that the error's traceback refers to. Until garbage collection, this
            # reference cycle would keep the frames of all callers and their objects in memory.
            traceback.clear_frames(error.__traceback__)
            failed = self.driver_error(error)
        finally:
            attributes.update(kept)
        if failed is not None:
            with suppress(self.Database.Error):
                if attributes["connection"] is not None:  # it was opened, but preparing it has failed
                    attributes["connection"].close()
            attributes.update(LINK_ATTRIBUTES)
            try:
                raise failed
            finally:
                del failed  # break the reference cycle of the error and this frame
        raw = attributes["connection"]
        link = WrapperLink(server, raw, self.driver, self.cursor_maker(raw))
        link.writes.session_changed = False  # the application did not run the statements that prepare it
        self._links[server] = self.selected = link
        return link

    def driver_error(self, error: Exception) -> Exception:
        """Return the driver's error that an error of Django wraps. Return any other error unchanged."""
        cause = error.__cause__
        return cause if isinstance(error, Error) and isinstance(cause, self.Database.Error) else error

    def cursor_maker(self, raw: Raw) -> Callable[[], Any]:
        """Return the function that makes a cursor of Django's backend on a connection."""
        return raw.cursor  # type: ignore[no-any-return]  # the driver decides its type

    # Closing

    def close_link(self, link: Link) -> None:
        """Close a link, even if its connection is broken already."""
        if link is self.selected:
            self.select(None)
        block = self.route.block
        if self._is_open(link):
            del self._links[link.server]
        if block is not None and link in block:
            block.links.remove(link)
        if self.route.link is link:
            self.route.forget()
        self.close_raw(link)

    def close_raw(self, link: Link) -> None:
        """Close the connection of a link."""
        close_raw(link.raw, link.process)


def _look(writes: Writes, link: Link, thread: int, scope: Scope) -> None:
    """Ask the server what the application has written with `connection` itself, and record it in the scope.

    In another thread than ``thread``, a statement may be running on the link. Then assume a write, and ask nothing.
    """
    if thread == get_ident():
        writes.look(link, link.writes, scope, at_once=True)
    else:
        writes.record_in(scope, Written.YES)
