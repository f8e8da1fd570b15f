"""`RoutingSession`: a session whose statements run where the switch says."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replswitch.errors import ConfigurationError, NoServerError
from replswitch.sqlalchemy.engines import switch_of
from replswitch.sqlalchemy.pooled import Calls, SlaveEngine
from replswitch.sqlalchemy.route import SessionRoute
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import SessionTransaction


class RoutingSession(Session):
    """A session that runs its statements on the master or a slave, as the switch of each database says.

    For ``sessionmaker(class_=RoutingSession)``, `scoped_session`, and as ``sync_session_class`` of an ``AsyncSession``.
    It takes what `sqlalchemy.orm.Session` takes, or the class that follows it in a subclass of both. Which engine is
    meant, that class decides; where it is one that `replicate` knows as a master, the switch decides whether it serves,
    or a slave's engine. Others are left alone, and so is a ``bind`` that a statement names itself.

    Raises:
        ConfigurationError: ``twophase`` was asked for.
    """

    _knows_db: ClassVar[bool] = False

    # What `super().get_bind` is. To look that up each time costs a fifth of what we add.
    _next_get_bind = Session.get_bind

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        following = cls.__mro__[cls.__mro__.index(RoutingSession) + 1 :]
        cls._next_get_bind = super().get_bind
        begins: list[Any] = [each.__init__ for each in following]  # type: ignore[misc]  # each one's own
        cls._knows_db = any("db" in inspect.signature(begin).parameters for begin in begins)

    def __init__(self, *args: Any, **options: Any) -> None:
        # The route in each database, by the engine that the session is bound to; None where that is not replicated.
        self._routes: dict[Engine, SessionRoute | None] = {}
        self._calls = Calls()
        self._in_flush = False
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
            SlaveWriteError: the session is flushed in slave state, and the write may not move to the master.
        """
        # On the way of every statement: as little as can be while nothing has changed since the one before.
        engine: Any
        if options:
            engine = super().get_bind(mapper, clause=clause, bind=bind, **options)
        else:
            engine = self._next_get_bind(mapper, clause=clause, bind=bind)
        try:
            route = self._routes[engine]
        except KeyError:
            route = self._route_of(engine)
        if route is None or bind is not None:
            return engine
        frame = stack()
        if frame is route.frame and route.scope.version == route.version and not self._flushing:
            return route.bind if route.pending is None else route.offer(route.pending)
        return route.choose(frame, flushing=self._flushing and self._has_changes())

    def _route_of(self, engine: Any) -> SessionRoute | None:
        if not isinstance(engine, Engine):
            return None  # a connection that the application has made
        switch = switch_of(engine)
        route = None if switch is None else SessionRoute(self, self._calls, switch.database, switch.driver, engine)
        self._routes[engine] = route
        return route

    def flush(self, objects: Any = None) -> None:
        """Write what is pending; see `sqlalchemy.orm.Session.flush`."""
        self._in_flush = True
        try:
            super().flush(objects)
        finally:
            self._in_flush = False

    def _has_changes(self) -> bool:
        # An object whose attributes were set to what they were is dirty too, and SQLAlchemy writes nothing for it.
        return not self._in_flush or bool(self.new or self.deleted or any(map(self.is_modified, self.dirty)))

    @property
    def _replicated(self) -> Iterator[SessionRoute]:
        return (route for route in self._routes.values() if route is not None)

    def close(self) -> None:
        """End the transaction, and forget the objects; see `sqlalchemy.orm.Session.close`."""
        super().close()
        self._let_go()

    def reset(self) -> None:
        """Do the same, for a session that `close` would close for good; see `sqlalchemy.orm.Session.reset`."""
        super().reset()
        self._let_go()

    def _let_go(self) -> None:
        # A connection may be meant for a statement that never came. Without a transaction there is no event for that.
        for route in self._replicated:
            route.end()

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
        connect = super().connection  # which takes what it needs out of its argument
        made: Connection = self._run(lambda: connect(bind_arguments and dict(bind_arguments), execution_options))
        return made

    def _run(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        calls = self._calls
        outer = calls.running, calls.attempts
        calls.number += 1
        calls.running, calls.attempts = calls.number, {}
        try:
            while True:
                try:
                    return method(*args, **options)
                except DBAPIError as error:
                    if not any([route.runs_again(error.orig) for route in self._replicated]):  # noqa: C419 - each is told
                        raise
                except NoServerError as error:
                    # A flush that has failed has rolled back: the session is active no more.
                    routes = self._replicated if self.is_active else ()
                    if not any([route.runs_without_master(error) for route in routes]):  # noqa: C419 - each is told
                        raise
        finally:
            calls.running, calls.attempts = outer


@event.listens_for(RoutingSession, "after_begin")
def _begin(session: RoutingSession, _: SessionTransaction, connection: Connection) -> None:
    if connection.engine not in session._routes and not isinstance(connection.engine, SlaveEngine):
        session._route_of(connection.engine)  # a statement has named its engine itself
    for route in session._replicated:
        route.begin_on(connection)


@event.listens_for(RoutingSession, "before_commit")
def _commit(session: RoutingSession) -> None:
    for route in session._replicated:
        route.refuse_if_lost()


@event.listens_for(RoutingSession, "after_transaction_end")
def _end(session: RoutingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._let_go()
