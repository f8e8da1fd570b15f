"""What is committed on the master, by whichever session or connection, is recorded in the running scope (M1, P1)."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from replswitch.engine.writes import is_recording
from replswitch.sqlalchemy.pooled import OUR_OWN, is_autocommit, streams
from replswitch.sqlalchemy.route import route_of
from replswitch.state import get_stack

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from replswitch.drivers import Driver, WriteTracker
    from replswitch.engine.writes import Writes
    from replswitch.scope import Scope

# Where the `info` of a connection keeps the commit that is under way.
_COMMIT: Final = "replswitch.commit"


class Commit:
    """A commit that is under way in one thread; looked at when its connection goes back, or a read needs to know.

    In autocommit mode it is all that was run there since the last look.
    """

    def __init__(self, writes: Writes, tracker: WriteTracker, scope: Scope) -> None:
        self._writes = writes
        self._tracker = tracker
        self._scope = scope
        self._is_recorded = is_recording()
        self._thread = get_ident()
        self._is_over = False

    def belongs_to(self, scope: Scope | None) -> bool:
        """Say whether it is the running thread's, in this scope, and recorded as what runs now is."""
        return self._scope is scope and self._thread == get_ident() and self._is_recorded == is_recording()

    def look(self, *, is_last: bool = False) -> None:
        """Look, in the thread that commits and as long as it has the connection. Others do not come after it.

        Args:
            is_last: the connection is about to do something else, or to serve another thread.
        """
        if self._is_over or not (is_last or self._thread == get_ident()):
            return
        self._is_over = is_last
        if self._is_recorded:
            self._writes.look(self, self._tracker, self._scope, at_once=True)
        else:
            self._tracker.pop_write_status()
            self._tracker.discard_write_status(with_rows=True)


class Recorder:
    """Records what is committed through one engine."""

    def __init__(self, writes: Writes, driver: Driver) -> None:
        self._writes = writes
        self._driver = driver
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
        route = route_of(connection)
        if route is not None:
            route.before_commit()
        self._add_pending(connection)

    def _add_pending(self, connection: Connection) -> None:
        frame = get_stack()
        if frame is None or connection.invalidated:
            return
        found: Commit | None = connection.info.get(_COMMIT)
        if found is None:
            tracker = self._driver.writes_of(connection.connection.dbapi_connection)
            found = connection.info[_COMMIT] = Commit(self._writes, tracker, frame.scope)
        commit = found
        if frame.scope.pending_on(commit) is None:
            frame.scope.add_pending(commit, lambda _: commit.look())  # which knows the scope

    # In autocommit mode each statement is committed by itself.

    def _will_run(self, connection: Connection, *about: Any) -> None:
        commit: Commit | None = connection.info.get(_COMMIT)
        if commit is None:
            return  # as in every transaction
        frame = get_stack()
        if not commit.belongs_to(None if frame is None else frame.scope) or streams(about[3]):
            del connection.info[_COMMIT]
            commit.look(is_last=True)

    def _has_run(self, connection: Connection, *about: Any) -> None:
        # Amid a result that is still being read nothing can be asked; it is looked at when the connection goes back.
        if is_autocommit(connection) and not streams(about[3]):
            self._add_pending(connection)

    def _begin(self, connection: Connection) -> None:
        commit: Commit | None = connection.info.pop(_COMMIT, None)
        if commit is not None:  # in the midst of another transaction the driver may not tell of it
            commit.look(is_last=True)

    def _rollback(self, connection: Connection) -> None:
        # The application may have used the driver's cursors, for which there is no event.
        if not self._driver.opens_connections and is_autocommit(connection):
            self._commit(connection)

    def _look(self, raw: Any, entry: ConnectionPoolEntry) -> None:
        commit: Commit | None = entry.info.pop(_COMMIT, None)
        if entry.info.pop(OUR_OWN, False) or raw is None:
            return
        if commit is not None:
            commit.look(is_last=True)
        if self._driver.opens_connections or self._is_autocommit:  # what no rollback undoes is told without a commit
            self._writes.look(self, self._driver.writes_of(raw), at_once=True)
