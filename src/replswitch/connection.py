"""A DB-API connection that follows its switch."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, Self

from replswitch.cursor import Cursor
from replswitch.database import Database
from replswitch.drivers import Driver, load_driver
from replswitch.errors import ConfigurationError
from replswitch.local import Locals, Query
from replswitch.options import DatabaseOptions, refuse_unknown
from replswitch.routing import Router
from replswitch.servers import Servers
from replswitch.state import Switch
from replswitch.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType


def connect(
    master: Mapping[str, Any] | None = None,
    slaves: Sequence[Mapping[str, Any]] = (),
    *,
    driver: str = "pymysql",
    autocommit: bool = True,
    on_slave_write: Literal["master", "error"] = "master",
    wait: float = 0,
    downtime: float = 10,
    max_lag: float | None = None,
    fallback: Literal["master", "error"] = "master",
    name: str | None = None,
    pool_size: int = 5,
    debug: bool = False,
    **unknown: Never,
) -> Connection:
    """Make a connection to a replicated database. Nothing is opened before the first statement.

    One connection serves all threads and tasks of a process: each has its own state, links and transaction.

    Args:
        master: the settings of the master, as the driver's own ``connect`` takes them.
        slaves: the settings of each slave; what is left out is the master's. Without slaves, slave state is served
            by the master through a read-only link (S10). ``"weight"`` among them is the slave's share of the reads,
            compared with the others', 1 by default; a master with a weight takes a share, too.
        driver: ``"pymysql"``, ``"mysqlclient"`` or ``"sqlite3"``.
        autocommit: whether a statement outside ``begin()`` … ``commit()`` stands for itself.
        on_slave_write: see `replswitch.options.DatabaseOptions`, as for the next four.
        wait: seconds.
        downtime: seconds.
        max_lag: seconds.
        fallback: ``"master"`` or ``"error"``.
        name: what the database is called in markers; its own name on the server by default. Databases of the same
            name that replicate by themselves should have different ones, or the visitors of one wait for the other.
        pool_size: idle links kept for each server; more are opened as threads need them.
        debug: keep what ran in `Connection.queries`.

        unknown: nothing; an option that does not exist is refused by name.

    Raises:
        ConfigurationError: an option or a setting is missing, unknown or of the wrong kind, or the driver is not
            there.
    """
    refuse_unknown("option of connect()", unknown, inspect.signature(connect).parameters.keys() - {"unknown"})
    if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
        raise ConfigurationError(f'The option "pool_size" is {pool_size!r}. It must be a whole number above 0.')
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigurationError(f'The option "name" is {name!r}. It must be a word for the database, such as "shop".')
    options = DatabaseOptions(
        on_slave_write=on_slave_write, wait=wait, downtime=downtime, max_lag=max_lag, fallback=fallback
    )
    loaded = load_driver(driver)
    servers = Servers(loaded, master, slaves, pool_size)
    return Connection(loaded, servers, options, name=name, autocommit=autocommit, debug=debug)


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
        self._module = driver.module
        self._driver = driver
        self.servers = servers
        self._locals = Locals(autocommit=autocommit)
        label = servers.schema if name is None else name
        self.database = Database(self, label, options=options, has_slaves=servers.has_slaves)
        self._router = Router(self.database, driver, servers, self._locals)
        self.debug = debug

    # PEP 249

    def cursor(self, *args: Any) -> Cursor:
        """Return a cursor. What the driver's ``cursor()`` takes, such as PyMySQL's ``DictCursor``, is handed on.

        Raises:
            InterfaceError: the connection is closed.
        """
        self._router.check_open()
        return Cursor(self._router, self._module, args)

    def begin(self) -> None:
        """Begin a transaction: a link joins it with its first statement, and all of them end together (S5).

        Raises:
            ProgrammingError: a transaction is open already.
        """
        local = self._router.local()
        if local.transaction is not None:
            raise self.ProgrammingError("begin() inside a transaction. Call commit() or rollback() first.")
        local.transaction = Transaction(self._driver)

    def commit(self) -> None:
        """Commit the transaction; without one, do nothing."""
        self._router.commit()

    def rollback(self) -> None:
        """Roll the transaction back; without one, do nothing."""
        self._router.rollback()

    def autocommit(self, value: bool) -> None:
        """Turn autocommit on or off for this thread or task, up to the end of the request.

        Raises:
            ProgrammingError: a transaction is open.
        """
        local = self._router.local()
        if local.transaction is not None:
            raise self.ProgrammingError("autocommit() inside a transaction. Call commit() or rollback() first.")
        local.autocommit = bool(value)

    def get_autocommit(self) -> bool:
        """Return whether autocommit is on in this thread or task."""
        return self._router.local().autocommit

    def close(self) -> None:
        """Close the links; those that other threads are using, when they have done.

        Like any DB-API connection it is of no use afterwards: every statement raises InterfaceError.
        """
        if not self._router.closed:
            self.rollback()
            self._router.closed = True
            self._locals.mine().links.clear()
            self.servers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What ran

    @property
    def debug(self) -> bool:
        """Whether what runs is kept in `queries`."""
        return self._router.debug

    @debug.setter
    def debug(self, value: bool) -> None:
        self._router.debug = bool(value)

    @property
    def queries(self) -> list[Query]:
        """What this thread or task ran while `debug` was on; the latest 9,000."""
        return list(self._locals.holdings().queries)

    def reset_queries(self) -> None:
        """Empty `queries`."""
        self._locals.holdings().queries.clear()

    def __getattr__(self, name: str) -> Any:
        # PEP 249, optional extensions: the module's exceptions are attributes of its connections.
        if name == "Warning" or name.endswith("Error"):
            return getattr(self._module, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
