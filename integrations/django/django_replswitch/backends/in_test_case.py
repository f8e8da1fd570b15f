"""Make slave state work in a Django TestCase as in production: `production_routing`.

A TestCase runs each test in a transaction on the master, which is never committed. Therefore only its connection sees
the rows of the test, and by rule S5 this connection serves all statements. `production_routing` treats the atomic
blocks inside the transaction of the TestCase as the application's transactions. Statements in slave state run on a view
of this transaction. A view is a link that shows the rows of the test, but on which the database refuses writes.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from django.core.signals import setting_changed
from django.db import connections

from django_replswitch.backends.link import LINK_ATTRIBUTES, WrapperLink
from django_replswitch.conf import configured
from django_replswitch.other_stores import commits
from replswitch import MASTER, SLAVE
from replswitch.drivers import WriteTracker
from replswitch.engine.block import Block
from replswitch.engine.database import Database
from replswitch.engine.port import Port
from replswitch.engine.recording import is_repeatable
from replswitch.engine.route import Route
from replswitch.engine.servers import Server, Servers
from replswitch.engine.writes import committed_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from replswitch.drivers import Raw
    from replswitch.engine.attempt import Attempt
    from replswitch.engine.options import DatabaseOptions
    from replswitch.engine.servers import Link

# With this setting, Django's PostgreSQL backend uses no server-side cursors, whose reads would bypass the view.
_NO_SERVER_CURSORS: Final = "DISABLE_SERVER_SIDE_CURSORS"


@contextmanager
def production_routing(*aliases: str) -> Iterator[None]:
    """In a TestCase, make slave state work as in production.

    In the block, statements in slave state see the rows of the test, and the database refuses a write in slave state.
    As in production, the write then moves to the master, or its request runs again, or SlaveWriteError is raised. Only
    the connections of the running thread are affected. There is no lag, and responses set no marker, because nothing is
    committed. Outside the transaction of a TestCase, the block changes nothing.

    Args:
        aliases: the aliases of the affected databases; all by default.
    """
    with ExitStack() as exits:
        for alias in aliases or connections:
            connection: Any = connections[alias]
            if hasattr(connection, "view_of_transaction") and _is_of_test_case(connection):
                exits.enter_context(TransactionRouting(connection).in_use())
        yield


def _is_of_test_case(connection: Any) -> bool:
    """Return whether the connection is in the transaction of a TestCase, and in no other atomic block."""
    blocks = connection.atomic_blocks
    return bool(blocks) and not isinstance(blocks, _AtomicBlocks) and all(each._from_testcase for each in blocks)


def guarded_link(wrapper: Any, server: Server, guard: Callable[[Raw], AbstractContextManager[None]]) -> WrapperLink:
    """Return a read-only link that uses the connection of the open transaction, so that it sees the rows of the test.

    Args:
        wrapper: Django's connection, with the master's link selected.
        server: the server that the link is for.
        guard: returns a context manager in which the database refuses writes.
    """
    master = wrapper.selected
    view = WrapperLink(server, master.raw, wrapper.driver, lambda: _GuardedCursor(master, view, guard))
    view.writes = WriteTracker()
    view.parked = {**LINK_ATTRIBUTES, "connection": master.raw}
    wrapper._links[server] = view
    return view


class _GuardedCursor:
    """A driver's cursor whose statements run inside a guard, so that the database refuses their writes.

    Args:
        master: the link of the transaction.
        view: the link that `guarded_link` returns. Its tracker notes if a statement has changed the session.
        guard: see `guarded_link`.
    """

    def __init__(
        self, master: WrapperLink, view: WrapperLink, guard: Callable[[Raw], AbstractContextManager[None]]
    ) -> None:
        self._master = master
        self._view = view
        self._guard = guard
        self._cursor = master.cursor()

    def execute(self, *args: Any) -> Any:
        return self._run(self._cursor.execute, args)

    def executemany(self, *args: Any) -> Any:
        return self._run(self._cursor.executemany, args)

    def callproc(self, *args: Any) -> Any:
        return self._run(self._cursor.callproc, args)

    def _run(self, method: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        tracker = self._master.writes
        before = tracker.session_changed
        try:
            with self._guard(self._master.raw):
                tracker.session_changed = False
                result = method(*args)
                self._view.writes.session_changed |= tracker.session_changed
                return result
        finally:
            tracker.session_changed = before

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class _AtomicBlocks(list[Any]):
    """Django's list of the open atomic blocks. It notices when the application's outermost block begins and ends.

    Args:
        blocks: the blocks of the TestCase.
        routing: the object whose ``begin()`` and ``end()`` are called when the application's outermost block begins and
            ends.
    """

    def __init__(self, blocks: list[Any], routing: TransactionRouting) -> None:
        super().__init__(blocks)
        self._of_test_case = len(blocks)
        self._routing = routing

    def append(self, block: Any) -> None:
        super().append(block)
        if len(self) == self._of_test_case + 1:
            self._routing.begin()

    def pop(self, *index: Any) -> Any:
        block = super().pop(*index)
        if len(self) == self._of_test_case:
            self._routing.end()
        return block


class TransactionRouting(Port):
    """Routes the statements of one connection while it is in the transaction of a TestCase.

    Args:
        connection: Django's connection, a `wrapper.SwitchingWrapper`.
    """

    def __init__(self, connection: Any) -> None:
        self.driver = connection.driver
        self._connection = connection
        known: Database = connection._shared.database
        view = Server(known.servers.master.name, SLAVE, {})
        self._database = Database(
            known.switch,
            known.name,
            Servers(known.servers.master, (view,), view, has_slaves=False),
            _without_lag(known.options),
            known.set_name,
        )
        self._links: dict[Server, WrapperLink] = {}
        self._route = Route(self._database, self)
        self._sids: tuple[str, ...] = ()  # the savepoints of the application
        self._joined: dict[Link, tuple[str, ...]] = {}  # the savepoints that were open when a link joined
        self._has_written = False  # something was written in the application's atomic block

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """In the block, route the statements of the connection through this object."""
        connection, attributes = self._connection, vars(self._connection)
        with connection.switch.use_master():
            master = connection.use(connection.route.for_statement())  # it joins the transaction of the TestCase
        view = self._database.servers.master_read_only
        self._links = {self._database.servers.master: master, view: connection.view_of_transaction(view)}
        before = {"route": connection.route, "atomic_blocks": connection.atomic_blocks}
        attributes.update(
            route=self._route,
            atomic_blocks=_AtomicBlocks(connection.atomic_blocks, self),
            _savepoint=self._savepoint,
            _savepoint_commit=self._savepoint_commit,
            _savepoint_rollback=self._savepoint_rollback,
        )
        server_cursors = connection.settings_dict.get(_NO_SERVER_CURSORS, False)
        connection.settings_dict[_NO_SERVER_CURSORS] = True
        connection.execute_wrappers.insert(0, self._execute)
        setting_changed.connect(self._renew)
        try:
            yield
        finally:
            setting_changed.disconnect(self._renew)
            connection.execute_wrappers.remove(self._execute)
            connection.settings_dict[_NO_SERVER_CURSORS] = server_cursors
            attributes.update(before)
            for name in ("_savepoint", "_savepoint_commit", "_savepoint_rollback"):
                del attributes[name]
            connection.route.forget()
            self._close(view, master)

    def _close(self, view: Server, master: WrapperLink) -> None:
        connection, link = self._connection, self._links[view]
        if connection._is_open(link):  # the test may have closed the connection
            connection.select(master if connection._is_open(master) else None)
            if link.raw is master.raw:
                del connection._links[view]
            else:
                connection.close_link(link)
        self._links = {}

    def _renew(self, *, setting: str, **_: object) -> None:
        if setting == "REPLSWITCH":
            self._database.options = _without_lag(configured()[1])
            self._route.forget()

    # The application's transaction: its outermost atomic block

    def begin(self) -> None:
        """Begin a transaction of the application. If it has no savepoint, make one, so that a rollback is possible."""
        connection = self._connection
        self._has_written = connection.needs_rollback = False
        self._route.begin(Block())
        if connection.savepoint_ids[-1] is None:
            connection.savepoint_ids[-1] = connection.savepoint()

    def end(self) -> None:
        """End the transaction. Django then calls `_savepoint_commit` or `_savepoint_rollback`."""
        block = self._route.end()
        if block is not None:
            block.lost = None  # see `wrapper.SwitchingWrapper._rollback`
        self._joined.clear()

    def _savepoint(self, sid: str) -> None:
        self._on_master(self._connection.ops.savepoint_create_sql(sid))
        self._sids = (*self._sids, sid)

    def _savepoint_commit(self, sid: str) -> None:
        self._forget_savepoint(sid)
        self._on_master(self._connection.ops.savepoint_commit_sql(sid))
        if self._route.block is None and self._has_written:
            self._has_written = False
            committed_elsewhere()

    def _savepoint_rollback(self, sid: str) -> None:
        block = self._route.block
        self._on_master(self._connection.ops.savepoint_rollback_sql(sid))
        if block is None:
            self._has_written = False
        else:
            block.links[:] = [link for link in block.links if sid not in self._joined[link]]
            self._route.forget()

    def _forget_savepoint(self, sid: str) -> None:
        if sid in self._sids:
            self._sids = self._sids[: self._sids.index(sid)]

    def _on_master(self, sql: str) -> None:
        connection = self._connection
        with connection._on(self._links[self._database.servers.master]), connection.cursor() as cursor:
            cursor.execute(sql)

    def _execute(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run a statement.

        If it writes something that would be committed in production, record this, because then the request must not
        run again (R5).
        """
        if self._route.block is None:
            self._connection.needs_rollback = False  # in production, an error would not affect later statements
        result = execute(sql, params, many, context)
        if self._route.side == MASTER and commits(sql) and not is_repeatable():
            if self._route.block is None:
                committed_elsewhere()
            else:
                self._has_written = True
        return result

    # replswitch.engine.port.Port

    def open(self, server: Server) -> WrapperLink:
        """Return the link of the transaction for the master, and the view for a slave."""
        return self._links[server]

    def drop(self, server: Server, link: Link | None = None) -> None:
        """Do nothing, because another connection would not see the rows of the test."""

    def borrowed(self, server: Server) -> AbstractContextManager[Raw]:
        """Return a new connection as a context manager that closes it."""
        borrowed: AbstractContextManager[Raw] = self._connection.borrowed(server)
        return borrowed

    def join(self, link: Link) -> None:
        """Record which savepoints are open when a link joins the application's transaction."""
        self._joined[link] = self._sids

    def lose_block(self, error: Exception) -> None:
        """Refuse further statements, as Django does after an error."""
        self._connection.lose_block(error)

    def as_own(self, error: Exception) -> Exception:
        """Return replswitch's error as one that is also an error of Django. Return other errors unchanged."""
        own: Exception = self._connection.as_own(error)
        return own

    def has_read(self, attempt: Attempt | None) -> bool:
        """Return whether the application's transaction has read in slave state, over the read-only view."""
        return self._route.block is not None and self._route.block.has_read


def _without_lag(options: DatabaseOptions) -> DatabaseOptions:
    return replace(options, max_lag=None)
