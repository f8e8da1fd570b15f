"""A DB-API connection that runs each statement on the master or on a slave, as the running code asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, Unpack

from replswitch.checking import is_number, require, require_name
from replswitch.connect.cursor import Cursor
from replswitch.connect.settings import driver_for, servers_of
from replswitch.connect.workers import Query, Workers
from replswitch.drivers import Driver, load_driver
from replswitch.engine.block import Block
from replswitch.engine.database import Database
from replswitch.engine.options import DatabaseOptions, database_options
from replswitch.state import Switch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replswitch.connect.local import RouteState
    from replswitch.engine.options import DatabaseOptionNames
    from replswitch.engine.servers import Servers

# Attributes of the driver's connection that PEP 249 does not have, with one value on all links that serve a state.
_OF_ANY_LINK: Final = frozenset(
    {
        *("character_set_name", "charset", "encoding", "get_character_set_info", "get_host_info", "get_proto_info"),
        *("escape", "escape_string", "get_server_info", "literal", "server_version", "string_literal", "thread_id"),
    }
)
# Attributes of the driver's connection that concern one link only, with advice on what to use instead.
_INSTEAD: Final = {
    "affected_rows": "Read rowcount of the cursor.",
    "insert_id": "Read lastrowid of the cursor.",
    "select_db": 'Give "database" to connect(), or name the database in the statement: SELECT … FROM other.message.',
    "set_character_set": 'Give "charset" to connect().',
    "set_charset": 'Give "charset" to connect().',
}
_ELSE: Final = "Give connect() a setting that applies to all links, or run a statement with a cursor."


def connect(
    master: str | Mapping[str, Any] | None = None,
    slaves: str | Sequence[str | Mapping[str, Any]] = (),
    *,
    driver: str | Driver | None = None,
    autocommit: bool = True,
    name: str | None = None,
    pool_size: int = 5,
    debug: bool = False,
    **options: Unpack[DatabaseOptionNames],
) -> Connection:
    """Make a connection to a replicated database. Nothing is opened before the first statement.

    One connection serves all threads and tasks of a process. Each of them has its own state, links and transaction.

    Args:
        master: the settings of the master, as the driver's own ``connect`` takes them; or its URL, such as
            ``mysql://user:password@host:port/database?charset=utf8mb4``.
        slaves: the settings or the URL of each slave. A setting that is left out is taken from the master. A string is
            a list of URLs, separated by white space or commas. Without slaves, the master serves slave state through a
            read-only link (S10). The setting ``"weight"`` is the slave's share of the reads, relative to the other
            slaves; the default is 1. A master with a weight serves a share of the reads, too.
        driver: ``"pymysql"``, ``"mysqlclient"``, ``"psycopg"`` or ``"sqlite3"``; or an instance of
            `replswitch.drivers.Driver`, for a database that replswitch does not know. The default is the driver of
            the master's URL, else ``"pymysql"``.
        autocommit: whether a statement outside ``begin()`` … ``commit()`` is committed by itself.
        name: the name of the replicated set in markers and messages. By default, markers use a digest of the
            master's address, which all databases of the master share, and messages use the database's own name.
        pool_size: how many idle links each server's pool keeps. More links are opened when threads need them.
        debug: keep a log of the statements in `Connection.queries`.
        options: see `replswitch.engine.options.DatabaseOptions`.

    Raises:
        ConfigurationError: an option or a setting is missing, unknown or of the wrong kind, or the driver is not
            installed.
    """
    checked = database_options(connect, options)
    is_fine = isinstance(pool_size, int) and is_number(pool_size) and pool_size > 0
    require(is_fine, "pool_size", pool_size, "a whole number above 0")
    require_name(name)
    loaded = load_driver(driver_for(master, driver)).for_database()
    servers = servers_of(loaded, master, slaves, pool_size)
    return Connection(loaded, servers, checked, name=name, autocommit=autocommit, debug=debug)


class Connection(Switch):
    """A DB-API connection to a master and its slaves, made by `connect`.

    Its arguments are those of `connect`. It raises the driver's exceptions. They are also its
    attributes (``db.IntegrityError``), as PEP 249 suggests.

    Attributes:
        servers: the master and the slaves.
        database: chooses between the master and the slaves, and records the writes.
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

    def cursor(self, *args: Any, **options: Any) -> Cursor:
        """Return a cursor. The arguments are those of the driver's ``cursor()``, such as PyMySQL's ``DictCursor``.

        Raises:
            Exception: the driver's InterfaceError, if the connection is closed.
        """
        workers = self._workers
        if workers.closed:
            workers.check_open()
        return Cursor(workers, self._driver, args, options)

    def begin(self) -> None:
        """Begin a transaction. A link joins it with its first statement, and all links end it together (S5).

        The transaction belongs to the running thread or task. Some frameworks run a dependency and its endpoint in
        different threads, as FastAPI does with synchronous functions. So call `begin` and `commit` in the function that
        runs the statements.

        Raises:
            Exception: the driver's ProgrammingError, if a transaction is open already.
        """
        self._outside_transaction("begin").route.begin(Block())

    def _outside_transaction(self, method: str) -> RouteState:
        state = self._workers.state()
        if state.route.block is not None:
            raise self.ProgrammingError(
                f"{method}() was called inside a transaction. Call commit() or rollback() first."
            )
        return state

    def commit(self) -> None:
        """Commit the transaction. Do nothing if there is none."""
        self._workers.state().commit()

    def rollback(self) -> None:
        """Roll the transaction back. Do nothing if there is none."""
        self._workers.state().rollback()

    def autocommit(self, value: bool) -> None:
        """Turn autocommit on (with a true ``value``) or off for this thread or task, until the end of the request.

        Raises:
            Exception: the driver's ProgrammingError, if a transaction is open.
        """
        self._outside_transaction("autocommit").autocommit = bool(value)

    def get_autocommit(self) -> bool:
        """Return whether autocommit is on in this thread or task."""
        return self._workers.state().autocommit

    def close(self) -> None:
        """Close the links. A link that another thread is using is closed when that thread has finished with it.

        As with any DB-API connection, every statement after that raises InterfaceError.
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
        """Whether the connection is open. It is False after ``close()``."""
        return not self._workers.closed

    def ping(self, reconnect: bool = True) -> None:
        """Ping the server that serves the next statement. If its link is lost, a new one is opened first.

        The argument ``reconnect`` is that of PyMySQL, and has no effect.
        """
        self._driver.ping(self._workers.state().route.pick().raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # The log of statements
    @property
    def debug(self) -> bool:
        """Whether the statements that run are kept in `queries`."""
        return self._workers.debug

    @debug.setter
    def debug(self, value: bool) -> None:
        self._workers.debug = bool(value)

    @property
    def queries(self) -> list[Query]:
        """The statements that this thread or task ran while `debug` was on; the latest 9,000."""
        return list(self._workers.worker().queries)

    def reset_queries(self) -> None:
        """Empty `queries`."""
        self._workers.worker().queries.clear()

    def __getattr__(self, name: str) -> Any:
        # PEP 249, optional extensions: the module's exceptions are attributes of its connections.
        if name == "Warning" or name.endswith("Error"):
            return getattr(self._driver.module, name)
        raw = self._workers.state().route.pick().raw if name in _OF_ANY_LINK else None
        if hasattr(raw, name):
            return getattr(raw, name)
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}. It uses several connections of the "
            f"driver, so it has no attributes that belong to only one of them. {_INSTEAD.get(name, _ELSE)}"
        )
