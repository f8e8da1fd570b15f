"""Sessions on the servers of a PostgreSQL pair, and what the superuser can read about a server.

The pair administers a server through its Unix socket, as superuser without a password. Only the owner of the folder can
use this socket. The application's account connects over TCP, on 127.0.0.1.
"""

from __future__ import annotations

import re
import threading
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from replswitch.errors import ConfigurationError
from replswitch.testing.errors import PairError
from replswitch.testing.processes import imported, is_readable
from replswitch.testing.promotion import PromotablePair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

STATEMENT = re.compile(
    r"^\d{4}-\d\d-\d\d [^[\n]*\[\d+\] <(?P<user>[^>\n]*)> LOG:  (?:statement|execute [^:\n]*): (?P<sql>.*(?:\n\t.*)*)",
    re.MULTILINE,
)
"""A statement in the log. The server puts a tab before its second and later lines."""


class PostgreSQLSessions(PromotablePair):
    """A pair of servers that psycopg connects to."""

    driver: ClassVar[str] = "psycopg"
    database_setting = "dbname"

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self._recorded: set[str] = set()
        self._own: dict[str, Connection[Any]] = {}  # the pair's own sessions, by the name of the server
        self._opening = threading.Lock()

    def connect(self, name: str | None = None) -> Connection[Any]:
        """Return a psycopg connection to one server, with the application's account and autocommit on.

        Args:
            name: which server; None is the master.
        """
        return _connect(**self._parameters(self._known(name or self.master_name)))

    def admin(self, name: str | None = None) -> Connection[Any]:
        """Return a psycopg connection of the superuser to the application's database, with autocommit on.

        Args:
            name: which server; None is the master.
        """
        name = self._known(name or self.master_name)
        return self._admin(self._ports[name])

    def status(self, name: str, variable: str) -> int:
        """Return one of a server's counters for the application's database (``pg_stat_database``).

        A session adds to them when it ends, or some time after it has become idle (monitoring-stats).

        Args:
            name: which server.
            variable: for instance ``xact_commit`` or ``sessions``.

        Raises:
            ConfigurationError: the server has no such counter.
        """
        sql = "SELECT to_jsonb(counters) -> %s AS value FROM pg_stat_database AS counters WHERE datname = %s"
        value = self._run(self._known(name), sql, variable, self.database)[0]["value"]
        if not isinstance(value, int):
            raise ConfigurationError(f"{variable!r} is not a counter in pg_stat_database of the {name}")
        return value

    @contextmanager
    def statements(self, name: str) -> Iterator[list[str]]:
        """Record the statements that a server receives from the application while the block runs.

        A statement with parameters is recorded without their values.

        Args:
            name: which server.

        Yields:
            A list that is filled, in the order of arrival, when the block is left.

        Raises:
            PairError: the server's statements are being recorded already.
        """
        if self._known(name) in self._recorded:
            raise PairError(f"the statements of the {name} are being recorded already")
        self._record(name, on=True)
        begin = self._log(name).stat().st_size
        received: list[str] = []
        try:
            yield received
        finally:
            self._record(name, on=False)
            text = self._log(name).read_bytes()[begin:].decode()
            received += [
                found["sql"].replace("\n\t", "\n") for found in STATEMENT.finditer(text) if found["user"] == self.user
            ]

    def _admin(self, port: int) -> Connection[Any]:
        return _connect(host=str(self._keeper.folder), port=port, user="postgres", dbname=self.database)

    def _run(self, name: str, sql: str, *values: object) -> list[dict[str, Any]]:
        """Run one statement as superuser, and return its rows.

        Raises:
            PairError: the server cannot be reached or refuses; the driver's error is the cause.
        """
        try:
            cursor = self._session(name).execute(sql, values or None)
            columns = [column.name for column in cursor.description or ()]
            return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()] if columns else []
        except psycopg().Error as error:
            raise PairError(f"the {name} failed at {sql!r}: {error}") from error

    def _session(self, name: str) -> Connection[Any]:
        """Return the pair's own session on a server. It stays open, because a new one takes longer than a statement."""
        with self._opening:
            session = self._own.get(name)
            if session is None or session.closed or is_readable(session.fileno()):
                if session is not None:
                    session.close()
                self._own[name] = session = self.admin(name)
            return session

    def _remove(self) -> None:
        while self._own:
            self._own.popitem()[1].close()
        super()._remove()

    def _record(self, name: str, *, on: bool) -> None:
        with self._exclusively():
            (self._recorded.add if on else self._recorded.discard)(name)
            self._reconfigure(name)

    @abstractmethod
    def _reconfigure(self, name: str) -> None:
        """Turn the recording of statements on a server on or off, as `_recorded` says."""


def psycopg() -> Any:
    """Import psycopg and return it. It is imported when it is needed, and not when pytest loads the plugin."""
    return imported("psycopg", "postgresql")


def _connect(**parameters: Any) -> Connection[Any]:
    connection: Connection[Any] = psycopg().connect(**parameters, autocommit=True)
    return connection
