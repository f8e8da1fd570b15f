"""`RoutingSession`: a session whose statements run where the switch says."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replswitch.errors import ConfigurationError, NoServerError
from replswitch.sqlalchemy.part import Part
from replswitch.sqlalchemy.servers import SlaveEngine, link_of
from replswitch.sqlalchemy.switch import switch_of
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.orm import SessionTransaction


class RoutingSession(Session):
    """A session that runs its statements on the master or a slave, as the switch of each database says.

    For ``sessionmaker(class_=RoutingSession)``, `scoped_session`, and as ``sync_session_class`` of an ``AsyncSession``.
    It takes what `sqlalchemy.orm.Session` takes, or the class that stands behind it in a subclass of both. Which
    engine is meant, that class decides; where it is one that `replicate` knows as a master, the switch decides whether
    it serves, or a slave's engine. Others are left alone, and so is a ``bind`` that a statement names itself.

    Raises:
        ConfigurationError: ``twophase`` was asked for.
    """

    _knows_db: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        behind = cls.__mro__[cls.__mro__.index(RoutingSession) + 1 :]
        begins = [vars(each)["__init__"] for each in behind if "__init__" in vars(each) and each is not object]
        cls._knows_db = any("db" in inspect.signature(begin).parameters for begin in begins)

    def __init__(self, *args: Any, **options: Any) -> None:
        # The part in each database, by the engine that the session is bound to; None where that is not replicated.
        self._parts: dict[Engine, Part | None] = {}
        self._moment = 0
        self._began_at: int | None = None
        if "db" in options and not self._knows_db:
            del options["db"]  # Flask-SQLAlchemy gives it to whichever class it is told to use
        super().__init__(*args, **options)
        if self.twophase:
            raise ConfigurationError(
                "RoutingSession does not prepare transactions: leave twophase=True out, or use SQLAlchemy's Session."
            )

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **options: Any) -> Any:
        """Return the engine for a statement: SQLAlchemy's own choice, and of a replicated database the right one.

        Raises:
            NoServerError: no server is left that may serve it.
            SlaveWriteError: the session is flushed in slave state, and ``on_slave_write`` is ``"error"``.
        """
        # On the way of every statement: as little as can be while nothing has changed since the one before.
        engine: Any
        if options:
            engine = super().get_bind(mapper, clause=clause, bind=bind, **options)
        else:
            engine = super().get_bind(mapper, clause=clause, bind=bind)
        try:
            part = self._parts[engine]
        except KeyError:
            part = self._part_of(engine)
        if part is None or bind is not None:
            return engine
        frame = stack()
        if frame is part.frame and part.scope.pins is part.pins and not self._flushing:
            return part.bind if part.waits is None else part.offer(part.waits)
        return part.choose(frame, flushing=self._flushing)

    def _part_of(self, engine: Any) -> Part | None:
        if not isinstance(engine, Engine):
            return None  # a connection that the application has made
        switch = switch_of(engine)
        part = self._parts[engine] = None if switch is None else Part(self, switch, engine)
        return part

    def close(self) -> None:
        """End the transaction, and forget the objects; see `sqlalchemy.orm.Session.close`."""
        super().close()
        self._let_go()

    def reset(self) -> None:
        """Do the same, for a session that `close` would close for good; see `sqlalchemy.orm.Session.reset`."""
        super().reset()
        self._let_go()

    def _let_go(self) -> None:
        # A connection may wait for a statement that never came; without a transaction nobody else tells.
        for part in self._parts.values():
            if part is not None:
                part.end()

    # A statement that fails may run again elsewhere. Everything that a session runs goes through these.

    def execute(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement; see `sqlalchemy.orm.Session.execute`."""
        return self._run(super().execute, statement, params, **options)

    def scalar(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement and return the first column of its first row; see `sqlalchemy.orm.Session.scalar`."""
        return self._run(super().scalar, statement, params, **options)

    def scalars(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Run a statement and return the first column of its rows; see `sqlalchemy.orm.Session.scalars`."""
        return self._run(super().scalars, statement, params, **options)

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        """Return the connection for a statement. It leads to the server that was chosen, whatever happens to it."""
        connect = super().connection
        while True:
            try:
                return connect(bind_arguments and dict(bind_arguments), execution_options)
            except NoServerError as error:
                if not self._runs_without_master(error):
                    raise

    def _run(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        outer = self._began_at
        self._moment += 1
        self._began_at = self._moment
        try:
            while True:
                try:
                    return method(*args, **options)
                except DBAPIError as error:
                    if not self._runs_again(error.orig):
                        raise
                except NoServerError as error:
                    if not self._runs_without_master(error):
                        raise
        finally:
            self._began_at = outer

    def _runs_again(self, error: BaseException | None) -> bool:
        return any(part.runs_again(error) for part in self._parts.values() if part)

    def _runs_without_master(self, error: NoServerError) -> bool:
        return any([part.runs_without_master(error) for part in self._parts.values() if part])  # noqa: C419 - all are told

    def _leave(self, connection: Connection) -> None:
        """Close a connection that is of no more use, and let the session's transaction go on without it."""
        transaction: Any = self._transaction
        while transaction is not None:  # savepoints have it, too
            for key in (connection, connection.engine):
                transaction._connections.pop(key, None)
            transaction = transaction.parent
        connection.close()


@event.listens_for(RoutingSession, "after_begin")
def _begin(session: RoutingSession, _: SessionTransaction, connection: Connection) -> None:
    engine = connection.engine
    if isinstance(engine, SlaveEngine):
        link = link_of(connection)
        if link is not None and link.part is not None and link.part.link is link:
            link.part.begin_on_slave(link)
        return
    part = session._parts.get(engine) or session._part_of(engine)
    if part is not None:
        part.begin_on_master(connection)


@event.listens_for(RoutingSession, "after_transaction_end")
def _end(session: RoutingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._let_go()
