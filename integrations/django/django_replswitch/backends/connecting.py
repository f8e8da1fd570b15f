"""Django's connection object on several physical connections, which take turns in it.

What belongs to one physical connection is exchanged when another one is selected (`links.LINK_ATTRIBUTES`), so at any
moment the object looks like a stock one that is connected to the selected server.
"""

from __future__ import annotations

import traceback
from contextlib import contextmanager, suppress
from functools import cached_property
from os import getpid
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from django.db import DEFAULT_DB_ALIAS, Error
from django.db.backends.base.base import NO_DB_ALIAS

from django_replswitch.backends.alias_state import alias_state
from django_replswitch.backends.errors import NoMasterError, RefusedWriteError
from django_replswitch.backends.links import LINK_ATTRIBUTES, WrapperLink
from django_replswitch.backends.stock import StockWrapper
from django_replswitch.servers import merged, remember_name
from replswitch import SLAVE, NoServerError, SlaveWriteError
from replswitch.connect.pool import LinkPool
from replswitch.engine.attempt import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.port import Port
    from replswitch.engine.route import Route
    from replswitch.engine.servers import Link, Server

# The attributes that describe the transaction, which goes on when a link is opened in it.
_OF_TRANSACTION: Final = (
    "autocommit",
    "in_atomic_block",
    "savepoint_ids",
    "atomic_blocks",
    "needs_rollback",
    "closed_in_transaction",
    "run_on_commit",
)


class ConnectingWrapper(StockWrapper):
    """Opens and closes the links, each by itself. The part of `replswitch.engine.port.Port` about links.

    Attributes:
        driver: of all servers.
        stock: Django's own backend.
        one_link: see `replswitch.engine.port.Port`.
        selected: the link that the object is connected by now; None where that is closed.
    """

    driver: ClassVar[Driver]
    stock: ClassVar[type[Any]]
    one_link = False

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        remember_name(alias, settings_dict)
        self._alias_settings = settings_dict  # `settings_dict` is that of one server at times
        self._shared = alias_state(alias, settings_dict)
        if alias == NO_DB_ALIAS:
            self.one_link = True
        self.autocommit = settings_dict.get("AUTOCOMMIT", True)
        self._links: dict[Server, WrapperLink] = {}
        self.selected: WrapperLink | None = None
        self._server = self._shared.servers.master  # the selected one, also while its link is opened
        self._is_direct = False  # statements run on the selected link, whatever the state: Django's own, and ours

    @cached_property
    def route(self) -> Route:
        """Finds the link for each statement. Not made before it is needed, as the options may be wrong."""
        route = self._shared.make_route(cast("Port", self))
        if not self.autocommit:
            route.begin(Block())
        return route

    # Taking turns

    def _select(self, link: WrapperLink | None) -> None:
        selected, attributes = self.selected, vars(self)
        if link is selected:
            return
        if selected is not None:
            selected.parked = {name: attributes[name] for name in LINK_ATTRIBUTES}
        attributes.update(LINK_ATTRIBUTES if link is None else link.parked)
        self.selected = link
        if link is not None:
            self._server = link.server

    @contextmanager
    def _on(self, link: WrapperLink) -> Iterator[None]:
        """Run statements on one link, whatever the state. They are not the application's: they change no session."""
        before, is_direct, changed = self.selected, self._is_direct, link.writes.session_changed
        self._select(link)
        self._is_direct = True
        try:
            yield
        finally:
            self._is_direct = is_direct
            link.writes.session_changed = changed
            self._select(before if self._is_open(before) else None)

    def _is_open(self, link: Link | None) -> bool:
        return link is not None and self._links.get(link.server) is link

    # replswitch.engine.port.Port

    def open(self, server: Server) -> WrapperLink:
        """Return the link that is held if it is alive, or a new one."""
        link, block = self._links.get(server), self.route.block
        if link is None:
            return self._connect(server)
        if block is not None and link in block:
            return link
        if link.process == getpid():
            if link is not self.selected:
                self._select(link)
            if (not self.health_check_enabled or self._is_healthy()) and (
                not link.readable(0) or self.driver.alive(link.raw) or self._has_unread(link)
            ):
                return link
        self.close_link(link)
        return self._connect(server)

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Close the link that is held; there are no idle ones."""
        held, block = self._links.get(server), self.route.block
        if held is not None and (held is link or (link is None and (block is None or held not in block))):
            self.close_link(held)

    @contextmanager
    def borrowed(self, server: Server) -> Iterator[Raw]:
        """Open a connection for a while."""
        raw = self.driver.open(self.parameters(server), read_only=server.state == SLAVE)
        try:
            yield raw
        finally:
            raw.close()

    def as_own(self, error: Exception) -> Exception:
        """Return an error that is Django's as well."""
        if isinstance(error, SlaveWriteError):
            return RefusedWriteError(str(error), server=error.server, place=error.place)
        return NoMasterError(str(error), server=error.server) if isinstance(error, NoServerError) else error

    def has_read(self, attempt: Attempt | None) -> bool:
        """Say whether the transaction has read from a slave."""
        return self.route.block is not None and self.route.block.has_read

    # Opening

    def _is_healthy(self) -> bool:
        """Do Django's health check of the selected link, once a request."""
        self.health_check_done = self.health_check_done or self.is_usable()
        return self.health_check_done

    def _has_unread(self, link: WrapperLink) -> bool:
        """Read what a link may still owe; False if it is dead."""
        with suppress(self.Database.Error):
            self.drain(link)
            return self.driver.alive(link.raw)
        return False

    def drain(self, link: Link) -> None:
        """Read the results that an earlier statement still owes (a procedure's further results)."""
        try:
            self.driver.drain_results(link.raw)
        except self.Database.Error as error:
            self.route.failed_late(link, error)
            raise

    def _connect(self, server: Server) -> WrapperLink:
        """Open a link as Django does, and select it.

        Raises:
            Exception: the driver's own error.
        """
        attributes, is_direct = vars(self), self._is_direct
        kept = {name: attributes[name] for name in _OF_TRANSACTION}
        failed: Exception | None = None
        self._select(None)
        self._server, self._is_direct = server, True
        try:
            super().connect()
        except Exception as error:  # noqa: BLE001 - raised below
            # PyMySQL keeps its error in a frame that the error's traceback holds. In that circle, until it is
            # collected, are the frames of all callers and what they hold.
            traceback.clear_frames(error.__traceback__)
            failed = self.driver_error(error)
        finally:
            self._is_direct = is_direct
            attributes.update(kept)
        if failed is not None:
            with suppress(self.Database.Error):
                if self.connection is not None:  # what prepares it has failed
                    self.connection.close()
            attributes.update(LINK_ATTRIBUTES)
            try:
                raise failed
            finally:
                del failed  # it would be in a circle with this frame
        raw, autocommit = self.connection, self.settings_dict["AUTOCOMMIT"]
        link = WrapperLink(server, raw, self.driver, self.cursor_maker(raw), autocommit=autocommit)
        link.writes.session_changed = False  # by what prepares every connection
        self._links[server] = self.selected = link
        return link

    def cursor_maker(self, raw: Raw) -> Callable[[], Any]:
        """Return what makes a cursor of the backend's own on a connection."""
        raise NotImplementedError

    def driver_error(self, error: Exception) -> Exception:
        """Return the driver's error that one of Django's stands for."""
        cause = error.__cause__
        return cause if isinstance(error, Error) and isinstance(cause, self.Database.Error) else error

    def get_connection_params(self) -> dict[str, Any]:
        """Return the parameters of the selected server."""
        settings = self.settings_dict
        self.settings_dict = merged(self._server, settings, self.alias)
        try:
            params: dict[str, Any] = super().get_connection_params()
        finally:
            self.settings_dict = settings
        return params

    def parameters(self, server: Server) -> dict[str, Any]:
        """Return the parameters with which the driver opens a connection to any server, in any thread."""
        return self.stock_parameters(merged(server, self._alias_settings, self.alias))

    def parameters_for_report(self, server: Server) -> dict[str, Any]:
        """Return the same for the commands and checks that list servers; none is a test run's."""
        return self.stock_parameters(merged(server, self._alias_settings))

    def stock_parameters(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return what Django's own backend makes of settings, as far as the driver takes it."""
        params: dict[str, Any] = self.stock(settings, self.alias).get_connection_params()
        return params

    # Closing

    def close_link(self, link: WrapperLink) -> None:
        """Close a link, which may be lost."""
        if link is self.selected:
            self._select(None)
        block = self.route.block
        if self._is_open(link):
            del self._links[link.server]
        if block is not None and link in block:
            block.links.remove(link)
        if self.route.link is link:
            self.route.forget()
        LinkPool.close_link(link)
