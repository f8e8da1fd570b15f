"""A DB-API connection that follows its switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, Unpack

from replswitch.checking import is_number, require, require_name
from replswitch.connect.cursor import Cursor
from replswitch.connect.settings import servers_of
from replswitch.connect.workers import Query, Workers
from replswitch.drivers import Driver, load_driver
from replswitch.engine.attempt import Block
from replswitch.engine.database import Database
from replswitch.engine.options import DatabaseOptions, database_options
from replswitch.state import Switch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replswitch.connect.local import RouteState
    from replswitch.engine.options import DatabaseOptionNames
    from replswitch.engine.servers import Servers

# What the driver's connection has besides, and is the same on all links of a side.
_OF_ANY_LINK: Final = frozenset(
    {
        *("character_set_name", "charset", "encoding", "get_character_set_info", "get_host_info", "get_proto_info"),
        *("escape", "escape_string", "get_server_info", "literal", "server_version", "string_literal", "thread_id"),
    }
)
# What it has of one link alone, by what takes its place.
_INSTEAD: Final = {
    "affected_rows": "Read rowcount of the cursor.",
    "insert_id": "Read lastrowid of the cursor.",
    "select_db": 'Give "database" to connect(), or name the database in the statement: SELECT … FROM other.message.',
    "set_character_set": 'Give "charset" to connect().',
    "set_charset": 'Give "charset" to connect().',
}
_ELSE: Final = "What applies to all links is a setting of connect(); what a statement does is sent by a cursor."


def connect(
    master: Mapping[str, Any] | None = None,
    slaves: Sequence[Mapping[str, Any]] = (),
    *,
    driver: str | Driver = "pymysql",
    autocommit: bool = True,
    name: str | None = None,
    pool_size: int = 5,
    debug: bool = False,
    **options: Unpack[DatabaseOptionNames],
) -> Connection:
    """Make a connection to a replicated database. Nothing is opened before the first statement.

    One connection serves all threads and tasks of a process: each has its own state, links and transaction.

    Args:
        master: the settings of the master, as the driver's own ``connect`` takes them.
        slaves: the settings of each slave; what is left out is the master's. Without slaves, slave state is served
            by the master through a read-only link (S10). ``"weight"`` among them is the slave's share of the reads,
            compared with the others', 1 by default; a master with a weight takes a share, too.
        driver: ``"pymysql"``, ``"mysqlclient"`` or ``"sqlite3"``; or an instance of `replswitch.drivers.Driver`, for a
            database that replswitch does not know.
        autocommit: whether a statement outside ``begin()`` … ``commit()`` stands for itself.
        name: the name of the replicated set, in markers and in messages. By default markers have a digest of the
            master's address, which all databases of the master share; messages have the database's own name.
        pool_size: idle links kept for each server; more are opened as threads need them.
        debug: keep what ran in `Connection.queries`.
        options: see `replswitch.engine.options.DatabaseOptions`.

    Raises:
        ConfigurationError: an option or a setting is missing, unknown or of the wrong kind, or the driver is not
            there.
    """
    checked = database_options(connect, options)
    is_fine = isinstance(pool_size, int) and is_number(pool_size) and pool_size > 0
    require(is_fine, "pool_size", pool_size, "a whole number above 0")
    require_name(name)
    loaded = load_driver(driver)
    servers = servers_of(loaded, master, slaves, pool_size)
    return Connection(loaded, servers, checked, name=name, autocommit=autocommit, debug=debug)


class Connection(Switch):
    """A DB-API connection to a master and its slaves, made by `connect`.

    Its exceptions are the driver's, and stand here as attributes too (``db.IntegrityError``), as PEP 249 suggests.

    Attributes:
        servers: the master and the slaves.
        database: chooses the side, and records what is written.
    """

    records_writes: ClassVar[bool] = True

    def __init__(
        self,
        driver: Driver,
        servers: Servers,
        options: DatabaseOptions,
        *,
        name: str | None,
        autocommit: bool,
        debug: bool,
    ) -> None:
        self._driver = driver
        self.servers = servers
        settings = servers.master.source.settings
        label, set_name = name or driver.schema(settings) or servers.master.name, name or driver.set_name(settings)
        self.database = Database(self, label, servers, options, set_name)
        self._workers = Workers(self.database, driver, autocommit=autocommit)
        self.debug = debug

    # PEP 249

    def cursor(self, *args: Any) -> Cursor:
        """Return a cursor. What the driver's ``cursor()`` takes, such as PyMySQL's ``DictCursor``, is handed on.

        Raises:
            InterfaceError: the connection is closed.
        """
        workers = self._workers
        if workers.closed:
            workers.check_open()
        return Cursor(workers, self._driver, args)

    def begin(self) -> None:
        """Begin a transaction: a link joins it with its first statement, and all of them end together (S5).

        It is this thread's or task's alone. A framework that runs a dependency and its endpoint in different threads,
        as FastAPI does with sync ones, must call `begin`, the statements and `commit` in one of them.

        Raises:
            ProgrammingError: a transaction is open already.
        """
        self._outside_transaction("begin").route.begin(Block())

    def _outside_transaction(self, method: str) -> RouteState:
        state = self._workers.state()
        if state.route.block is not None:
            raise self.ProgrammingError(f"{method}() inside a transaction. Call commit() or rollback() first.")
        return state

    def commit(self) -> None:
        """Commit the transaction; without one, do nothing."""
        self._workers.state().commit()

    def rollback(self) -> None:
        """Roll the transaction back; without one, do nothing."""
        self._workers.state().rollback()

    def autocommit(self, value: bool) -> None:
        """Turn autocommit on or off for this thread or task, up to the end of the request.

        Raises:
            ProgrammingError: a transaction is open.
        """
        self._outside_transaction("autocommit").autocommit = bool(value)

    def get_autocommit(self) -> bool:
        """Return whether autocommit is on in this thread or task."""
        return self._workers.state().autocommit

    def close(self) -> None:
        """Close the links; those that other threads are using, when they have done.

        Like any DB-API connection it is of no use afterwards: every statement raises InterfaceError.
        """
        if not self._workers.closed:
            state = self._workers.state()
            state.rollback()
            self._workers.closed = True
            for server in {self.servers.master, *self.servers.slaves, self.servers.master_read_only}:
                state.drop(server)
                server.source.close()

    @property
    def open(self) -> bool:
        """Whether the connection can be used: it was not closed."""
        return not self._workers.closed

    def ping(self, reconnect: bool = True) -> None:
        """Ask the server of the next statement for an answer. A link that has ended is replaced, as it always is."""
        self._driver.ping(self._workers.state().route.pick().link.raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What ran

    @property
    def debug(self) -> bool:
        """Whether what runs is kept in `queries`."""
        return self._workers.debug

    @debug.setter
    def debug(self, value: bool) -> None:
        self._workers.debug = bool(value)

    @property
    def queries(self) -> list[Query]:
        """What this thread or task ran while `debug` was on; the latest 9,000."""
        return list(self._workers.worker().queries)

    def reset_queries(self) -> None:
        """Empty `queries`."""
        self._workers.worker().queries.clear()

    def __getattr__(self, name: str) -> Any:
        # PEP 249, optional extensions: the module's exceptions are attributes of its connections.
        if name == "Warning" or name.endswith("Error"):
            return getattr(self._driver.module, name)
        raw = self._workers.state().route.pick().link.raw if name in _OF_ANY_LINK else None
        if hasattr(raw, name):
            return getattr(raw, name)
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}. It has several links, and leaves out what "
            f"belongs to one of them. {_INSTEAD.get(name, _ELSE)}"
        )
