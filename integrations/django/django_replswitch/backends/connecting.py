"""Django's connection object, on several physical connections that take turns in it.

Whatever belongs to one physical connection is exchanged when another one works (`links.LINK_ATTRIBUTES`); at any
moment the wrapper looks like a stock one that is connected to the selected server.
"""

from __future__ import annotations

import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.db import DEFAULT_DB_ALIAS
from django.db import Error as DjangoError

from django_replswitch.backends.links import LINK_ATTRIBUTES, Link, Server
from django_replswitch.backends.replicated import replicated
from django_replswitch.backends.stock import StockWrapper
from replswitch import SLAVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.drivers import Driver

# The NAME of each alias as it was configured; a test run changes it in the settings themselves.
_names: Final[dict[str, object]] = {}

# What speaks of the transaction, and must outlive the opening of another link in it.
_KEPT: Final = ("autocommit", "in_atomic_block", "savepoint_ids", "atomic_blocks", "needs_rollback", "run_on_commit")


class ConnectingWrapper(StockWrapper):
    """Opens and closes the links, each by itself."""

    #: The driver's part of the core.
    driver: ClassVar[Driver]

    #: Django's own backend.
    stock: ClassVar[type[Any]]

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        _names.setdefault(alias, settings_dict.get("NAME"))
        self._alias_settings = settings_dict  # which stays, where `settings_dict` is that of a server at times
        self._shared = replicated(alias, settings_dict)  # with all threads
        self._master = self._link = Link(self._shared.master)
        self._links = {self._master.server: self._master}
        self._block: list[Link] = []  # the links in the running transaction
        self._only: Link | None = None  # statements of ours run there, whatever the state
        self._chosen: Link | None = None  # the one that serves as long as nothing changes

    # Taking turns

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
        self._chosen = None
        self._only = self._select(link)
        try:
            yield
        finally:
            self._only = only
            self._chosen = None
            self._select(before)

    # Opening

    def _open(self, link: Link) -> None:
        """Connect a link. What the transaction knows is kept, where Django would begin it anew.

        Raises:
            Exception: the driver's own error.
        """
        kept = {name: getattr(self, name) for name in _KEPT}
        with self._on(link):
            try:
                self.ensure_connection()
            except DjangoError as error:
                # PyMySQL keeps its error in a frame that the error's traceback holds. In that circle, until it is
                # collected, hang the frames of all callers and what they hold.
                traceback.clear_frames(error.__traceback__)
                if isinstance(error.__cause__, self.Database.Error):
                    raise error.__cause__ from None  # what it means, the driver knows
                raise
            finally:
                for name, value in kept.items():
                    setattr(self, name, value)
            link.raw = self.connection
        link.opened_at, link.identity = time.monotonic(), None
        link.autocommit = self.settings_dict["AUTOCOMMIT"]

    def _make_ready(self, link: Link) -> None:
        """Select a link, and see to it that it is open and alive; it is in no transaction yet."""
        if link is not self._link:
            self._select(link)
        self.close_if_health_check_failed()
        if self.connection is not None and not self.driver.alive(self.connection):
            self._close_link(link)
        if self.connection is None:
            self._open(link)

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

    @contextmanager
    def borrowed(self, server: Server | None) -> Iterator[Any]:
        """Open a connection for questions, in whichever thread. See `replswitch.slaves.Reach`."""
        to = self._master.server if server is None else server
        stock = self.stock(to.merged(self._alias_settings, _names[self.alias]), self.alias)
        raw = self.driver.open(stock.get_connection_params(), read_only=to.state == SLAVE)
        try:
            yield raw
        finally:
            raw.close()

    # Closing

    def close(self) -> None:
        """Close every link."""
        self.validate_thread_sharing()
        self._chosen = None
        if self._only is None:
            for link in self._links.values():
                if link is not self._link and link.raw is not None:
                    self._close_link(link)
        super().close()
        if self.connection is None:
            self._link.raw = None

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
                self.connection = link.raw = None

    def close_if_unusable_or_obsolete(self) -> None:
        """Close the links that have failed or are too old; each by itself."""
        if self.autocommit != self.settings_dict["AUTOCOMMIT"]:
            self.close()  # as Django does: what the application left open is nobody's any more
            return
        # What `_on` does, written out: this runs twice in each request.
        selected, only = self._link, self._only
        try:
            for link in tuple(self._links.values()):
                if link.raw is not None:
                    self._only = link if link is self._link else self._select(link)
                    super().close_if_unusable_or_obsolete()
        finally:
            self._only, self._chosen = only, None
            if selected is not self._link:
                self._select(selected)
