"""Which link a statement runs on: mostly that of the statement before."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from replswitch.database import no_master
from replswitch.errors import NoServerError
from replswitch.state import MASTER, SLAVE, stack
from replswitch.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replswitch.database import Database
    from replswitch.drivers import Driver, Raw
    from replswitch.links import Link
    from replswitch.local import Local
    from replswitch.scope import Scope
    from replswitch.servers import Server, Servers
    from replswitch.state import Frame, State


class Selection:
    """Selects links for the threads and tasks of one connection.

    Args:
        database: chooses the side, and among the slaves.
        driver: opens the links.
        servers: the servers to choose from.
    """

    def __init__(self, database: Database, driver: Driver, servers: Servers) -> None:
        self._database = database
        self._driver = driver
        self._servers = servers
        self._error = driver.module.Error

    def reach(self, local: Local) -> Reach:
        """Return how a thread or task reaches the slaves."""
        return Reach(self._servers, self._driver, local)

    def link(self, local: Local) -> Link:
        """Return the link for the next statement: mostly the one of the statement before."""
        frame, link = stack(), local.link
        if (
            link is not None
            and frame is local.frame
            and (frame is None or frame.scope.pins is local.pins)
            and local.transaction is None
            and local.autocommit
            and self._driver.alive(link.raw)
        ):
            return link
        return self._choose_link(local, frame)

    def _choose_link(self, local: Local, frame: Frame | None) -> Link:
        transaction = local.transaction
        pins = None if frame is None else frame.scope.pins  # what changes from here on is looked at the next time
        if transaction is None:
            if not local.autocommit:
                transaction = local.transaction = Transaction(self._driver, explicit=False)
        elif transaction.lost is not None:
            raise transaction.lost
        on_master = transaction is not None and transaction.on_master
        side, why = self._database.side(in_master_transaction=on_master)
        if side == SLAVE and frame is not None:
            link, side, other = self._slave_link(local, frame.scope)
            why = other or why
        else:
            try:
                link = self._master_link(local) if frame is None else self._reading_link(local, frame.scope, why)
            except NoServerError:
                reading = self.link_without_master(local)
                if reading is None:
                    raise
                link, side, why = reading, SLAVE, "no-master"
        if frame is not None and link.server.state == MASTER:
            self._driver.prepare(link.raw)
        if transaction is not None and link not in transaction and not self._joins(local, transaction, link, frame):
            return self._choose_link(local, frame)
        if frame is not None and (frame is not local.frame or link is not local.link):
            local.reason = why
            self._database.note(frame.scope, side, link.server.name, why)
        local.side = side
        local.frame, local.link, local.pins = frame, link, pins
        return link

    def _joins(self, local: Local, transaction: Transaction, link: Link, frame: Frame | None) -> bool:
        """Begin the transaction on a link; False where that is a slave that has failed, and is left alone now."""
        try:
            transaction.join(link)
        except self._error as error:
            reach = self.reach(local)
            if link.server.state == MASTER or frame is None:
                raise
            if not self._database.slaves.may_read_again(frame.scope, link, error, reach):
                raise
            local.links.pop(SLAVE, None)
            return False
        return True

    def _master_link(self, local: Local) -> Link:
        link, frame, transaction = self._usable(local, MASTER), stack(), local.transaction
        if link is None:
            link = local.links[MASTER] = self._open_master()
        elif frame is None or frame.scope.marker is None:
            return link  # what must be seen was written through it
        if frame is None or link is local.current or (transaction is not None and link in transaction):
            return link
        try:
            is_past = self._database.slaves.master_lacks(frame.scope, link, self._driver)
        except self._error as error:
            if not self._driver.unreachable(error):
                raise
            is_past = True
        if is_past:  # what else is idle leads there as well
            link.discard()
            link.server.links.drop_idle()
            local.links.pop(MASTER, None)
            link = local.links[MASTER] = self._open_master()
        local.current = link
        return link

    def _usable(self, local: Local, side: State) -> Link | None:
        """Return the link that is held for a side, if it is still alive."""
        link = local.links.get(side)
        if link is None or (local.transaction is not None and link in local.transaction):
            return link
        if self._driver.alive(link.raw):
            return link
        link.discard()
        del local.links[side]
        return None

    def _reading_link(self, local: Local, scope: Scope, why: str) -> Link:
        """Return a link to the master for what is most likely a read: one that refuses writes, where that helps.

        Not in a transaction: what follows there may write, and belongs together.
        """
        reader = self._servers.reader
        if local.transaction is not None or not self._database.may_refuse_writes(scope, why, reader, self._driver):
            return self._master_link(local)
        self._usable(local, SLAVE)
        try:
            link: Link = self._database.link_on_master(scope, reader, self.reach(local))
        except NoServerError as error:
            if MASTER not in local.links or not self._driver.is_full(error.__cause__):
                raise
            return self._master_link(local)
        local.links[SLAVE], local.slave_has = link, None
        return link

    def _slave_link(self, local: Local, scope: Scope) -> tuple[Link, State, str | None]:
        """Return a link to a slave that has what the scope must see; where none has, to the master, and the reason."""
        database, transaction = self._database, local.transaction
        must_see = database.slaves.must_see(scope)
        if (why := scope.pinned(database.key)) is not None:  # found out just now
            return self._reading_link(local, scope, why), MASTER, why
        held = self._usable(local, SLAVE)
        if held is not None and transaction is not None and held in transaction:
            # It shows what it had when the transaction began: neither asking nor waiting would change that.
            if must_see is None or (local.slave_has is not None and local.slave_has.includes(must_see)):
                return held, SLAVE, None
            return self._master_link(local), MASTER, database.read_on_master(scope, database.slaves.lack(scope))
        reach = self.reach(local)
        link: Link | None = database.slaves.choose(scope, self._servers.slaves, must_see, reach)
        if link is None:
            local.links.pop(SLAVE, None)
            why = database.slaves.lack(scope)
            try:
                return self._reading_link(local, scope, why), MASTER, database.read_on_master(scope, why)
            except NoServerError:
                link = self.link_without_master(local)
                if link is None:
                    raise
                return link, SLAVE, "no-master"
        local.links[SLAVE], local.slave_has = link, must_see
        return link, SLAVE, None

    def readers_without_master(self, local: Local) -> Sequence[Server]:
        """Return the servers that may run a statement which the master should, and cannot; none in a transaction."""
        frame, servers = stack(), self._servers
        if frame is None or local.transaction is not None:
            return ()
        return self._database.without_master(frame.scope, servers.slaves, servers.reader)

    def link_without_master(self, local: Local) -> Link | None:
        """Return a link for a read that the master should serve, and cannot; None where no server has what it must see.

        To any slave, whatever its state, or to the server that has the master's name by now. It refuses writes.
        """
        frame, database, servers = stack(), self._database, self.readers_without_master(local)
        if frame is None or not servers:
            return None
        if self._servers.reader not in self._servers.slaves:
            self._servers.reader.links.drop_idle()  # they lead to where the master was, and would take a time-out each
        must_see = database.slaves.must_see(frame.scope)
        reach = self.reach(local)
        link: Link | None = database.slaves.choose(frame.scope, servers, must_see, reach, is_last_resort=True)
        if link is not None:
            local.links[SLAVE], local.slave_has = link, must_see
            local.side, local.reason = SLAVE, "no-master"
            database.note(frame.scope, SLAVE, link.server.name, local.reason)
        return link

    def _open_master(self) -> Link:
        master = self._servers.master
        try:
            return master.take_link()
        except self._error as error:
            if not self._driver.unreachable(error):
                raise
            raise no_master(master.name, error) from error


class Reach:
    """See `replswitch.slaves.Reach`.

    Args:
        servers: the servers to choose from.
        driver: opens the links.
        local: what the thread or task holds.
    """

    def __init__(self, servers: Servers, driver: Driver, local: Local) -> None:
        self._servers = servers
        self.driver = driver
        self._local = local

    def link_to(self, server: Server) -> Link:
        """Return the link that is held, or lend one."""
        held = self._local.links.get(SLAVE)
        return held if held is not None and held.server is server else server.take_link()

    def drop(self, server: Server) -> None:
        """Close the link that is held, and those that are idle."""
        held = self._local.links.get(SLAVE)
        if held is not None and held.server is server:
            held.discard()
            del self._local.links[SLAVE]
        server.links.drop_idle()

    @contextmanager
    def borrowed(self, server: Server | None) -> Iterator[Raw]:
        """Lend a link for a while."""
        link = (self._servers.master if server is None else server).take_link()
        yield link.raw  # which goes back when nothing refers to its link any more
