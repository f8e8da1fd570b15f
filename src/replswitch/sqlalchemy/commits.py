"""What is committed on the master, by whichever session or connection, is recorded in the running scope (M1, P1)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from replswitch.sqlalchemy.servers import COMMIT, OUR_OWN, PART
from replswitch.sqlalchemy.unknown import UnknownDriver
from replswitch.state import stack

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from replswitch.database import Database
    from replswitch.drivers import Driver, Raw
    from replswitch.scope import Scope


class Commit:
    """A commit that is under way in one thread; looked at when its connection goes back, or a read needs to know."""

    def __init__(self, database: Database, driver: Driver, raw: Raw, scope: Scope) -> None:
        self._database = database
        self._driver = driver
        self._raw = raw
        self._scope = scope
        self._thread = threading.get_ident()
        self._is_over = False

    def settle(self) -> None:
        """Look, in the thread that commits and as long as it has the connection. Others do not come after it."""
        if not self._is_over and self._thread == threading.get_ident():
            self._look()

    def end(self) -> None:
        """Look for the last time: the connection is about to do something else, or to be somebody else's."""
        if not self._is_over:
            self._is_over = True
            self._look()

    def _look(self) -> None:
        self._database.look_for_writes(self, self._driver, self._raw, self._scope, at_once=True)


class Recorder:
    """Records what is committed through one engine."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._database = database
        self._driver = driver
        self._is_unknown = isinstance(driver, UnknownDriver)

    def listen(self, engine: Engine) -> None:
        """Record from now on."""
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "rollback", self._rollback)
        event.listen(engine, "checkin", self._look)

    def _commit(self, connection: Connection) -> None:
        if connection.invalidated:
            return
        part = connection.info.get(PART)
        if part is not None:
            part.before_commit()
        frame = stack()
        if frame is None:
            return
        raw = connection.connection.dbapi_connection
        commit = connection.info[COMMIT] = Commit(self._database, self._driver, raw, frame.scope)
        frame.scope.doubt(commit, lambda _: commit.settle())  # which knows the scope

    def _begin(self, connection: Connection) -> None:
        commit: Commit | None = connection.info.pop(COMMIT, None)
        if commit is not None:  # in the midst of another transaction the driver may not tell of it
            commit.end()

    def _rollback(self, connection: Connection) -> None:
        # In this mode each statement was committed by itself.
        if self._is_unknown and connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            self._commit(connection)

    def _look(self, raw: Any, entry: ConnectionPoolEntry) -> None:
        info = entry.info
        commit: Commit | None = info.pop(COMMIT, None)
        info.pop(PART, None)
        if info.pop(OUR_OWN, False) or raw is None:
            return
        if commit is not None:
            commit.end()
        if not self._is_unknown:  # what cannot be rolled back is told of without a commit
            self._database.look_for_writes(self, self._driver, raw, at_once=True)
