"""How the servers of an alias are reached: the master, with what may be wrong with it, and the slaves."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import OperationalError
from django.db.backends.base.base import NO_DB_ALIAS

from django_replswitch.backends.connecting import ConnectingWrapper
from django_replswitch.backends.links import Link, Server
from replswitch import NoServerError
from replswitch.database import no_master
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replswitch.scope import Scope


class NoMasterError(NoServerError, OperationalError):
    """The master cannot be reached, or is read-only: replswitch's error, and Django's."""


class ReachingWrapper(ConnectingWrapper):
    """Opens the link to a server that was chosen. It is a `replswitch.slaves.Reach`, too."""

    # The master

    def _open_master(self) -> Link:
        """Select the master's link, open it, and return it.

        Raises:
            NoMasterError: it cannot be reached.
        """
        if self._master in self._block:
            return self._select(self._master)
        try:
            self._make_ready(self._master)
            if self._is_past_master():
                self._close_link(self._master)
                self._make_ready(self._master)
        except self.Database.Error as error:
            if not self.driver.unreachable(error):
                raise
            raise self.no_master(no_master(self._master.server.name, error)) from error
        return self._master

    def _is_past_master(self) -> bool:
        """Whether the master's link leads to one that was the master once, and lacks what must be seen, or is gone."""
        frame = stack()
        if frame is None or not frame.scope.must_see or self._only is not None:
            return False
        try:
            return self._shared.database.slaves.master_lacks(frame.scope, self._master, self.driver)
        except self.Database.Error as error:
            if not self.driver.unreachable(error):
                raise
            return True

    @staticmethod
    def no_master(error: NoServerError) -> NoMasterError:
        """Return an error of the core as one that is Django's, too."""
        return NoMasterError(str(error), server=error.server)

    def _reading_link(self, scope: Scope, why: str) -> Link:
        """Return a link to the master, open, for what is most likely a read: one that refuses writes, where that helps.

        Not in a transaction: what follows there may write, and belongs together.

        Raises:
            NoMasterError: it cannot be reached.
        """
        reader, database = self._shared.reader, self._shared.database
        if (
            self.alias == NO_DB_ALIAS
            or self._shares_link()
            or not self.autocommit
            or not database.may_refuse_writes(scope, why, reader, self.driver)
        ):
            return self._open_master()
        try:
            link: Link = database.link_on_master(scope, reader, self)
        except NoServerError as error:
            if self._master.raw is None or not self.driver.is_full(error.__cause__):
                raise self.no_master(error) from error.__cause__
            return self._open_master()
        return link

    def _readers_without_master(self) -> Sequence[Server]:
        frame, shared = stack(), self._shared
        if frame is None or self._block or self.alias == NO_DB_ALIAS or self._shares_link():
            return ()
        return shared.database.without_master(frame.scope, shared.slaves, shared.reader)

    # replswitch.slaves.Reach

    def link_to(self, server: Server) -> Link:
        """Return the link to a slave, open."""
        link = self._links.get(server)
        if link is None:
            link = self._links[server] = Link(server)
        self._make_ready(link)
        return link

    def drop(self, server: Server) -> None:
        """Close the link to a slave. In a transaction it stays, broken as it is: Django will want to roll it back."""
        link = self._links.get(server)
        if link is None or link.raw is None or link in self._block:
            return
        with suppress(self.Database.Error):  # it was closed already
            self._close_link(link)

    # For the classes in front

    def _shares_link(self) -> bool:
        """Whether both sides must be one connection, as with a database in memory."""
        return False
