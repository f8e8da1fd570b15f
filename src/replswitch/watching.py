"""Watch the statements that run, for tests and debugging tools. Without an observer, this costs nothing.

Each binding has a `Probe`, which hooks into the statements of the binding while an observer watches, and removes the
hook afterwards.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from replswitch.lock import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replswitch.decision import State
    from replswitch.drivers import Raw
    from replswitch.engine.route import Route
    from replswitch.engine.servers import Link

# The beginning of a statement that reads, after comments and parentheses; and words of statements that need the master.
_READ: Final = re.compile(
    r"(?:\s|\(|/\*(?:[^*]|\*(?!/))*\*/|(?:--|#)[^\n]*(?:\n|\Z))*+(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE
)
_QUOTED: Final = re.compile(r"'(?:[^'\\]|''|\\.)*+'|\"(?:[^\"\\]|\"\"|\\.)*+\"|`[^`]*+`", re.DOTALL)
_LOCKS: Final = re.compile(
    r"\bFOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|(?:KEY\s+)?SHARE)\b|\bLOCK\s+IN\s+SHARE\b", re.IGNORECASE
)
_WRITES: Final = re.compile(r"\b(?:INSERT\s+INTO|REPLACE\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO)\b", re.IGNORECASE)


class Statement(NamedTuple):
    """A statement that has run.

    Attributes:
        sql: its text, as the application gave it to the binding.
        database: the display name of its database; in Django, the alias.
        side: the state that it ran in.
        server: the name of the server.
        reason: why this server was chosen, as one of the reasons of `replswitch.decision.Decision`, or ``engine`` for
            a statement on an engine of SQLAlchemy without a session.
    """

    sql: str
    database: str
    side: State
    server: str
    reason: str

    @property
    def is_read(self) -> bool:
        """Whether the text of the statement only reads. False for a read that locks rows, which needs the master."""
        if _READ.match(self.sql) is None:
            return False
        code = _QUOTED.sub("''", self.sql)
        return _LOCKS.search(code) is None and _WRITES.search(code) is None


class Probe:
    """Reports the statements of one binding while an observer watches."""

    def start(self) -> None:
        """From now on, call `report` for each statement."""
        raise NotImplementedError

    def stop(self) -> None:
        """Report no more statements."""
        raise NotImplementedError


class CursorProbe(Probe):
    """Reports the statements of a class of cursors.

    Args:
        cursors: the class.
        methods: the names of its methods that run a statement, whose text is their first argument.
        route_of: returns the route of a cursor, and the link that its latest statement ran on.
    """

    def __init__(
        self, cursors: type, methods: tuple[str, ...], route_of: Callable[[Any], tuple[Route, Link | None]]
    ) -> None:
        self._class = cursors
        self._methods = methods
        self._originals: dict[str, Callable[..., Any]] = {}
        self._route_of = route_of

    def start(self) -> None:
        """Replace the methods of the cursors, so that they report their statements."""
        self._originals = {name: vars(self._class)[name] for name in self._methods}  # other tools may replace them, too
        for name, method in self._originals.items():
            setattr(self._class, name, self._reporting(method))

    def stop(self) -> None:
        """Restore the original methods of the cursors."""
        for name, method in self._originals.items():
            setattr(self._class, name, method)

    def _reporting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def run(cursor: Any, sql: Any, *args: Any, **options: Any) -> Any:
            result = method(cursor, sql, *args, **options)
            route, link = self._route_of(cursor)
            if link is not None:
                report(_text(sql, link.raw), route.database.name, route.side, link.server.name, route.reason)
            return result

        return run


def report(sql: str, database: str, side: State, server: str, reason: str) -> None:
    """Call the observers with a statement that has run. The arguments are the attributes of `Statement`."""
    statement = Statement(sql, database, side, server, reason)
    for observer in _observers:
        observer(statement)


def _text(sql: Any, raw: Raw) -> str:
    if isinstance(sql, bytes | bytearray):
        return sql.decode(errors="replace")
    compose = getattr(sql, "as_string", None)  # an object of psycopg.sql, or of psycopg2.sql, which needs a connection
    return str(sql if compose is None else compose(raw))


_lock: Final = ProcessLock()
_observers: tuple[Callable[[Statement], object], ...] = ()
_probes: list[Probe] = []


def add_probe(probe: Probe) -> None:
    """Let `watch` report the statements of one more binding, by its probe."""
    with _lock:
        _probes.append(probe)
        if _observers:
            probe.start()


@contextmanager
def watch(observer: Callable[[Statement], object]) -> Iterator[None]:
    """Call ``observer`` with each statement that runs during the block, in any thread of the process.

    The observer is called in the thread and the context of the statement, after the statement has succeeded.
    """
    _add(observer)
    try:
        yield
    finally:
        _remove(observer)


def _add(observer: Callable[[Statement], object]) -> None:
    global _observers
    with _lock:
        first, _observers = not _observers, (*_observers, observer)
        for probe in _probes if first else ():
            probe.start()


def _remove(observer: Callable[[Statement], object]) -> None:
    global _observers  # noqa: PLW0603 - one for the process
    with _lock:
        left = list(_observers)
        left.remove(observer)
        _observers = tuple(left)
        for probe in () if left else _probes:
            probe.stop()
