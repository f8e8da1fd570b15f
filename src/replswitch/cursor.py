"""A DB-API cursor whose side is chosen at ``execute`` and which fetches from the link it executed on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

    from replswitch.drivers import Raw
    from replswitch.links import Link
    from replswitch.routing import Router


def several(args: Any) -> Any:
    """Return the arguments of ``executemany`` as a sequence: a statement that is moved needs all of them once more."""
    return list(args) if isinstance(args, Iterator) else args


class Cursor:
    """A cursor of PEP 249. What the driver's own cursor has besides is reached through it once it has executed.

    Args:
        router: runs the statements of the connection it belongs to.
        module: the driver's module, for its exceptions.
        arguments: what the driver's ``cursor()`` takes, such as PyMySQL's cursor class.
    """

    def __init__(self, router: Router, module: ModuleType, arguments: tuple[Any, ...]) -> None:
        self._router = router
        self._module = module
        self._arguments = arguments
        self._link: Link | None = None
        self._raw: Raw = None
        self._arraysize = 1

    # What runs a statement

    def execute(self, sql: str, args: Any = None) -> Any:
        """Run a statement on the side that the state asks for. Returns what the driver's ``execute`` returns."""
        return self._router.run(self, "execute", sql, args)

    def executemany(self, sql: str, args: Any) -> Any:
        """Run a statement once for each of ``args``."""
        return self._router.run(self, "executemany", sql, several(args))

    def callproc(self, name: str, args: Any = ()) -> Any:
        """Call a stored procedure."""
        return self._router.run(self, "callproc", name, args)

    def executescript(self, sql: str) -> Any:
        """Run several statements, where the driver can (sqlite3)."""
        return self._router.run(self, "executescript", sql, None)

    def run_on(self, link: Link, method: str, sql: str, args: Any) -> Any:
        """Run a statement on ``link``; for the connection, which has chosen it."""
        raw = self._raw
        if self._link is not link:
            self._link, self._raw = None, None
            raw = link.raw.cursor(*self._arguments)
            if self._arraysize != 1:
                raw.arraysize = self._arraysize
            self._link, self._raw = link, raw
        result = getattr(raw, method)(sql) if args is None else getattr(raw, method)(sql, args)
        return self if result is raw else result

    # What fetches

    def fetchone(self) -> Any:
        """Return the next row, None behind the last."""
        row = self._executed.fetchone()
        if row is None:
            self._finished()
        return row

    def fetchmany(self, size: int | None = None) -> Any:
        """Return up to ``size`` rows, `arraysize` of them by default."""
        size = self.arraysize if size is None else size
        rows = self._executed.fetchmany(size)
        if len(rows) < size:
            self._finished()
        return rows

    def fetchall(self) -> Any:
        """Return all rows that are left."""
        rows = self._executed.fetchall()
        self._finished()
        return rows

    def nextset(self) -> Any:
        """Go on to the next result set; returns a false value when there is none."""
        return self._router.next_set(self._link, self._executed)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""
        yield from self._executed
        self._finished()

    def _finished(self) -> None:
        # A driver that fetches row by row learns only behind the last one what its statement has written.
        if self._link is not None:
            self._router.look_for_writes(self._link)

    # What tells

    @property
    def description(self) -> Any:
        """The columns of the result; None without one."""
        return None if self._raw is None else self._raw.description

    @property
    def rowcount(self) -> int:
        """The number of rows found or changed; -1 before a statement has run."""
        return -1 if self._raw is None else int(self._raw.rowcount)

    @property
    def lastrowid(self) -> Any:
        """The key of the row inserted last; None without one."""
        return None if self._raw is None else self._raw.lastrowid

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` returns by default: 1."""
        return self._arraysize

    @arraysize.setter
    def arraysize(self, size: int) -> None:
        self._arraysize = size
        if self._raw is not None:
            self._raw.arraysize = size

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._executed, name)

    @property
    def _executed(self) -> Raw:
        if self._raw is None:
            raise self._module.ProgrammingError(
                "This cursor has not executed a statement yet, or was closed. Call execute() first."
            )
        return self._raw

    # The end

    def close(self) -> None:
        """Let the result and the link go."""
        link, raw = self._link, self._raw
        self._link, self._raw = None, None
        if raw is not None:
            self._router.let_go(link, raw)
        if link is not None:
            self._router.look_for_writes(link)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
