"""The way of a statement: which side, which link, and what becomes of an error."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from replswitch.database import READER, no_master
from replswitch.selection import Selection
from replswitch.state import MASTER, SLAVE, stack
from replswitch.transaction import Transaction

if TYPE_CHECKING:
    from replswitch.cursor import Cursor
    from replswitch.database import Database
    from replswitch.drivers import Driver, Raw
    from replswitch.links import Link
    from replswitch.local import Local, Locals
    from replswitch.servers import Servers


class Router:
    """Runs the statements of one database on the links that its switch and its scope ask for.

    Args:
        database: chooses the side, and records what is written.
        driver: opens the links.
        servers: the servers to choose from.
        locals_: what each thread and task holds.
    """

    def __init__(self, database: Database, driver: Driver, servers: Servers, locals_: Locals) -> None:
        self._database = database
        self._driver = driver
        self._servers = servers
        self._selection = Selection(database, driver, servers)
        self._locals = locals_
        self._error = driver.module.Error
        self.debug = False
        self.closed = False

    def local(self) -> Local:
        """Return what the running thread or task holds, ready to work for the running scope.

        Raises:
            InterfaceError: the connection is closed.
        """
        self.check_open()
        return self._locals.mine()

    def check_open(self) -> None:
        """Refuse to work once the connection is closed."""
        if self.closed:
            raise self._driver.module.InterfaceError(
                "The connection is closed. Make a new one with replswitch.connect()."
            )

    # Running

    def run(self, cursor: Cursor, method: str, sql: str, args: Any) -> Any:
        """Run a statement.

        One that a slave refuses because it writes runs once more, on the master (S8); a read that a slave has failed
        runs once more on another, and last on the master (F1).
        """
        local = self.local()
        link = self._selection.link(local)
        failed: Counter[str] | None = None
        while True:
            try:
                return self._run_on(local, link, cursor, method, sql, args)
            except self._error as error:
                failed = failed or Counter()
                failed[self._part_of(local, link)] += 1
                following = self._link_after(local, link, error, failed, is_one=method == "execute")
                if following is None:
                    raise
                link = following

    def _link_after(
        self, local: Local, link: Link, error: Exception, failed: Counter[str], *, is_one: bool
    ) -> Link | None:
        """Return the link on which a statement that has failed may run again; None where it may not.

        The error is raised where it was caught: raised here, it would be in a circle with this frame.
        """
        if link.server.state == MASTER:
            # Of several statements (executemany) some may have run.
            return self._link_after_master(local, link, error, is_first=is_one and failed[MASTER] == 1)
        if self._part_of(local, link) == READER and not self._driver.refused_write(error):
            return self._link_after_reader(local, link, error)
        is_enough = failed[SLAVE] > len(self._servers.slaves) + 1  # each, and whoever has the master's name
        if (failed[MASTER] or failed[READER]) and local.side == SLAVE:
            return self._link_after_both(local, link, error, is_enough=is_enough, may_have_run=bool(failed[MASTER]))
        if is_enough:
            return None
        return self._link_after_slave(local, link, error)

    def _part_of(self, local: Local, link: Link) -> str:
        """Return which state a link serves; `replswitch.database.READER` where it stands for the master's."""
        return READER if local.side == MASTER and link.server is self._servers.reader else link.server.state

    def _link_after_reader(self, local: Local, link: Link, error: Exception) -> Link | None:
        """The same as `_link_after_master` for a link to the master that refuses writes; it is in no transaction."""
        if not self._driver.unreachable(error):
            return None
        link.discard()
        local.links.pop(SLAVE, None)
        local.link = None
        self._database.tell_of_lost_master(link.server.name, error)
        reading = self._selection.link_without_master(local)
        if reading is None:
            raise no_master(link.server.name, error) from error
        return reading

    def _link_after_slave(self, local: Local, link: Link, error: Exception) -> Link | None:
        driver, transaction, frame = self._driver, local.transaction, stack()
        if driver.refused_write(error):
            return self._move_to_master(local, link, error)
        may_read_again = frame is not None and self._database.slaves.may_read_again(
            frame.scope, link, error, self._selection.reach(local)
        )
        if transaction is None and may_read_again:
            local.links.pop(SLAVE, None)
            local.link = None
            return self._selection.link(local)
        if transaction is not None and (driver.unreachable(error) or driver.rolled_back(link.raw, error)):
            transaction.lost = error
        return None

    def _link_after_master(self, local: Local, link: Link, error: Exception, *, is_first: bool) -> Link | None:
        driver, transaction = self._driver, local.transaction
        if transaction is not None and (driver.is_lost_master(error) or driver.rolled_back(link.raw, error)):
            transaction.lost = error
        if driver.is_lost_master(error):
            link.discard()
            local.links.pop(MASTER, None)
            link.server.links.drop_idle()
            database = self._database
            may_read = driver.unreachable(error) and bool(self._selection.readers_without_master(local))
            reading = self._selection.link_without_master(local) if may_read else None
            if reading is not None:
                database.tell_of_lost_master(link.server.name, error)
                return reading
            if database.may_run_again(
                driver, link.server.name, error, is_first=is_first, in_transaction=transaction is not None
            ):
                return self._selection.link(local)
            if may_read:
                raise no_master(link.server.name, error) from error
        return None

    def _link_after_both(
        self, local: Local, link: Link, error: Exception, *, is_enough: bool, may_have_run: bool
    ) -> Link | None:
        """The same for one that the master has failed first: it must not run there again, because it may be a write."""
        frame, database, driver = stack(), self._database, self._driver
        assert frame is not None  # noqa: S101 - it runs on a slave; for the type checker
        master = self._servers.master.name
        if driver.refused_write(error):
            if not may_have_run:
                raise no_master(master, error) from error
            database.refuse_lost_write(error, master)
        reach = self._selection.reach(local)
        if not database.slaves.may_read_again(frame.scope, link, error, reach):
            return None
        reading = None if is_enough else self._selection.link_without_master(local)
        if reading is None:
            if may_have_run:
                database.record_write()
            raise no_master(master, error) from error
        return reading

    def _run_on(self, local: Local, link: Link, cursor: Cursor, method: str, sql: str, args: Any) -> Any:
        self._read_on(link)
        started = time.perf_counter() if self.debug else 0.0
        try:
            result = cursor.run_on(link, method, sql, args)
        finally:
            if self.debug:
                self._log(local, link, sql, time.perf_counter() - started)
            if link.server.state == MASTER:
                self.look_for_writes(link)
        if local.side == SLAVE and cursor.description is not None:
            local.read_from_slave = True
            if local.transaction is not None:
                local.transaction.read = True
        if self._driver.in_transaction(link.raw) is (local.transaction is None):
            self._follow_transaction(local, link)
        return result

    def _follow_transaction(self, local: Local, link: Link) -> None:
        # The application began or ended a transaction by a statement of its own, or DDL ended it.
        if local.transaction is None:
            local.transaction = Transaction(self._driver)
            local.transaction.adopt(link)
        else:
            local.transaction.ended_on(link)
            local.transaction = None

    def let_go(self, link: Link | None, raw: Raw) -> None:
        """Close a driver's cursor. One whose link is lost has told that already."""
        try:
            raw.close()
        except self._error as error:
            if link is not None:
                self._refuse_late_write(link, error)
            if not self._driver.unreachable(error):
                raise

    def next_set(self, link: Link | None, raw: Raw) -> Any:
        """Go on to the next result set of a procedure."""
        if link is None or not hasattr(raw, "nextset"):
            return None
        try:
            return raw.nextset()
        except self._error as error:
            self._refuse_late_write(link, error)
            raise
        finally:
            self.look_for_writes(link)

    def _read_on(self, link: Link) -> None:
        try:
            self._driver.read_on(link.raw)
        except self._error as error:
            self._refuse_late_write(link, error)
            raise

    # Writes and errors

    def look_for_writes(self, link: Link) -> None:
        """Record in the running scope that a write was committed on the master, if the link was told of one (M1)."""
        if link.server.state == MASTER:
            self._database.look_for_writes(link, self._driver, link.raw)

    def _move_to_master(self, local: Local, link: Link, error: Exception) -> Link:
        transaction = local.transaction
        self._database.move_write(
            error,
            link.server.name,
            scope_has_read=local.read_from_slave,
            transaction_has_read=transaction is not None and transaction.read,
        )
        if transaction is not None:
            transaction.leave(link)
        return self._selection.link(local)

    def _refuse_late_write(self, link: Link, error: Exception) -> None:
        if link.server.state == SLAVE and self._driver.refused_write(error):
            self._database.refuse_late(error, link.server.name)

    # Transactions

    def commit(self) -> None:
        """Commit the open transaction on every link in it."""
        local = self.local()
        transaction, local.transaction = local.transaction, None
        if transaction is None:
            return
        try:
            transaction.commit()
        except self._error:
            if transaction.on_master:
                self._database.record_write()  # nobody knows whether it was committed
            raise
        for link in transaction.links:
            self.look_for_writes(link)

    def rollback(self) -> None:
        """Roll the open transaction back on every link in it."""
        local = self.local()
        transaction, local.transaction = local.transaction, None
        if transaction is not None and transaction.lost is not None:
            transaction.lost = None  # it would be in a circle with the frames that know the transaction
        elif transaction is not None:
            transaction.rollback()
            for link in transaction.links:
                self.look_for_writes(link)  # of what cannot be rolled back

    def _log(self, local: Local, link: Link, sql: str, seconds: float) -> None:
        server = link.server
        self._locals.holdings().queries.append(
            {"sql": sql, "time": seconds, "db": local.side, "server": server.name, "reason": local.reason}
        )
