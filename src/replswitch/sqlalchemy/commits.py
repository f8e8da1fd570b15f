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
    """A commit that is under way in one thread; looked at when its connection goes back, or a read needs to know.

    In autocommit mode it is all that was run there since the last look.
    """

    def __init__(self, database: Database, driver: Driver, raw: Raw, scope: Scope) -> None:
        self._database = database
        self._driver = driver
        self._raw = raw
        self._scope = scope
        self._thread = threading.get_ident()
        self._is_over = False

    def is_of(self, scope: Scope | None) -> bool:
        """Say whether it is the running thread's, in this scope."""
        return self._scope is scope and self._thread == threading.get_ident()

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
        self._is_autocommit = False

    def listen(self, engine: Engine) -> None:
        """Record from now on."""
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "rollback", self._rollback)
        event.listen(engine, "checkin", self._look)
        event.listen(engine, "before_cursor_execute", self._will_run)
        event.listen(engine, "after_cursor_execute", self._has_run)
        self._is_autocommit = is_autocommit(engine)

    def _commit(self, connection: Connection) -> None:
        if connection.invalidated:
            return
        part = connection.info.get(PART)
        if part is not None:
            part.before_commit()
        self._doubt(connection)

    def _doubt(self, connection: Connection) -> None:
        frame = stack()
        if frame is None:
            return
        found: Commit | None = connection.info.get(COMMIT)
        if found is None:
            raw = connection.connection.dbapi_connection
            found = connection.info[COMMIT] = Commit(self._database, self._driver, raw, frame.scope)
        commit = found
        if frame.scope.doubted(commit) is None:
            frame.scope.doubt(commit, lambda _: commit.settle())  # which knows the scope

    # In autocommit mode each statement is committed by itself.

    def _will_run(self, connection: Connection, *about: Any) -> None:
        commit: Commit | None = connection.info.get(COMMIT)
        if commit is None:
            return  # as in every transaction
        frame = stack()
        if not commit.is_of(None if frame is None else frame.scope) or _streams(about[3]):
            del connection.info[COMMIT]
            commit.end()

    def _has_run(self, connection: Connection, *about: Any) -> None:
        # Amid a result that is still being read nothing can be asked; it is looked at when the connection goes back.
        if is_autocommit(connection) and not _streams(about[3]):
            self._doubt(connection)

    def _begin(self, connection: Connection) -> None:
        commit: Commit | None = connection.info.pop(COMMIT, None)
        if commit is not None:  # in the midst of another transaction the driver may not tell of it
            commit.end()

    def _rollback(self, connection: Connection) -> None:
        # The application may have used the driver's cursors, of which no event tells.
        if self._is_unknown and is_autocommit(connection):
            self._commit(connection)

    def _look(self, raw: Any, entry: ConnectionPoolEntry) -> None:
        info = entry.info
        commit: Commit | None = info.pop(COMMIT, None)
        info.pop(PART, None)
        if info.pop(OUR_OWN, False) or raw is None:
            return
        if commit is not None:
            commit.end()
        if not self._is_unknown or self._is_autocommit:  # what cannot be rolled back is told of without a commit
            self._database.look_for_writes(self, self._driver, raw, at_once=True)


def is_autocommit(bind: Connection | Engine) -> bool:
    """Say whether each statement is committed by itself, as `create_engine` or an execution option has set it."""
    level = bind.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(bind.dialect, "_on_connect_isolation_level", None)  # create_engine(isolation_level=…)
    return bool(level == "AUTOCOMMIT")


def _streams(context: Any) -> bool:
    return context is not None and bool(context.execution_options.get("stream_results"))
