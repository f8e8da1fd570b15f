"""`RoutingSession`, a session that runs each statement on the master or on a slave."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from replswitch.errors import ConfigurationError, NoServerError
from replswitch.sqlalchemy.alone import Forks
from replswitch.sqlalchemy.facts import SWITCH
from replswitch.sqlalchemy.pooled import NO_ATTEMPTS, Calls, SlaveEngine
from replswitch.sqlalchemy.route import SessionRoute
from replswitch.state import stack

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import SessionTransaction

    from replswitch.sqlalchemy.engines import EngineSwitch


#: Stands for the route in a database that the session has not used so far.
_UNKNOWN: Final[Any] = object()


def _repeating(name: str, summary: str) -> Any:
    """Return a method that calls SQLAlchemy's method, and calls it again if its statement has failed on a server.

    One function does this for all methods, because a call between the two would take as long as the rest.
    """

    def method(self: RoutingSession, *args: Any, **options: Any) -> Any:
        call, calls = getattr(super(RoutingSession, self), name), self._calls
        outer = calls.running
        calls.running = calls.number = calls.number + 1
        try:
            while True:
                try:
                    return call(*args, **options)
                except DBAPIError as error:
                    if not any([route.runs_again(error.orig) for route in self._replicated]):  # noqa: C419 - call each
                        raise
                except NoServerError as error:
                    # A failed flush has rolled back, so the session is no longer active.
                    routes = self._replicated if self.is_active else ()
                    if not any([route.runs_without_master(error) for route in routes]):  # noqa: C419 - call each
                        raise
        finally:
            calls.running = outer
            if not outer:
                calls.attempts = NO_ATTEMPTS

    method.__name__, method.__qualname__ = name, f"RoutingSession.{name}"
    method.__doc__ = f"{summary}. The arguments are those of `sqlalchemy.orm.Session.{name}`."
    return method


class _ArgumentsKept(Session):
    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        # SQLAlchemy removes items from the argument, and a second call needs them.
        return super().connection(bind_arguments and dict(bind_arguments), execution_options)


class RoutingSession(_ArgumentsKept):
    """A session that runs its statements on the master or a slave, according to the switch of each database.

    Use it in ``sessionmaker(class_=RoutingSession)``, in ``scoped_session``, and as ``sync_session_class`` of an
    ``AsyncSession``. It takes the arguments of `sqlalchemy.orm.Session`. A subclass of RoutingSession and another
    session class takes the arguments of the other class. SQLAlchemy chooses the engine as usual. If that engine is
    a master's engine given to `replicate`, the switch decides whether the master's or a slave's engine serves the
    statement. Other engines are used unchanged, and so is a ``bind`` that a statement names itself.

    Raises:
        ConfigurationError: ``twophase`` was asked for.
    """

    _knows_db: ClassVar[bool] = False

    # True if every statement without a `bind` of its own uses the session's, and no other class decides.
    _has_one_bind = True
    _replicated: tuple[SessionRoute, ...] = ()  # the routes in `_routes` that are not None
    _in_flush = False

    # The same as `super().get_bind`. The lookup would be a fifth of the time that replswitch adds to each statement.
    _next_get_bind = Session.get_bind

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        following = cls.__mro__[cls.__mro__.index(RoutingSession) + 1 :]
        cls._next_get_bind = super().get_bind
        cls._has_one_bind = cls._next_get_bind is Session.get_bind
        begins: list[Any] = [each.__init__ for each in following]  # type: ignore[misc]  # each one's own
        cls._knows_db = any("db" in inspect.signature(begin).parameters for begin in begins)

    def __init__(self, *args: Any, **options: Any) -> None:
        # The route in each database, by the engine that the session is bound to; None if the engine is not replicated.
        self._routes: dict[Engine, SessionRoute | None] = {}
        self._calls = Calls()
        if options.get("binds"):
            self._has_one_bind = False
        if "db" in options and not self._knows_db:
            del options["db"]  # Flask-SQLAlchemy passes it to every session class
        super().__init__(*args, **options)
        if self.twophase:
            raise ConfigurationError(
                "RoutingSession has no two-phase commit. Leave twophase=True out, or use SQLAlchemy's Session."
            )

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **options: Any) -> Any:
        """Return the engine for a statement. For a replicated database, return the master's engine or a slave's.

        The arguments are those of SQLAlchemy; see `sqlalchemy.orm.Session.get_bind`.

        Raises:
            NoServerError: no server is left that may serve the statement.
            SlaveWriteError: the session is flushed in slave state, and the write may not move to the master.
        """
        # Every statement calls this, so do as little as possible if nothing has changed since the previous one.
        engine: Any = self.bind
        if bind is not None or engine is None or not self._has_one_bind:  # else SQLAlchemy would return `engine`
            engine = self._next_get_bind(mapper, clause=clause, bind=bind, **options)
        route = self._routes.get(engine, _UNKNOWN)
        if route is _UNKNOWN:
            route = self._route_of(engine)
        if route is None or bind is not None:
            return engine
        frame = stack()
        if (
            frame is route.frame
            and route.scope.version == route.version
            and route.forks == Forks.number
            and not self._flushing
        ):
            return route.bind if route.pending is None else route.offer(route.pending)
        return route.choose(frame, flushing=self._flushing and self._has_changes())

    def bind_mapper(self, mapper: Any, bind: Any) -> None:
        """Bind a mapper to an engine; see `sqlalchemy.orm.Session.bind_mapper`."""
        self._has_one_bind = False
        super().bind_mapper(mapper, bind)

    def bind_table(self, table: Any, bind: Any) -> None:
        """Bind a table to an engine; see `sqlalchemy.orm.Session.bind_table`."""
        self._has_one_bind = False
        super().bind_table(table, bind)

    def _route_of(self, engine: Any) -> SessionRoute | None:
        if not isinstance(engine, Engine):
            return None  # the session is bound to a connection, which the application has made
        route = None
        switch: EngineSwitch | None = engine._execution_options.get(SWITCH)
        if switch is not None:
            route = SessionRoute(self, self._calls, switch.database, switch.driver, engine)
            self._replicated = (*self._replicated, route)
        self._routes[engine] = route
        return route

    def _flush(self, objects: Any = None) -> None:
        # SQLAlchemy's flush() calls it only if there may be something to write, while each query calls flush().
        self._in_flush = True
        try:
            super()._flush(objects)
        finally:
            self._in_flush = False

    def _has_changes(self) -> bool:
        # An object is dirty even if its attributes were set to the same values. SQLAlchemy writes nothing for it.
        return not self._in_flush or bool(self.new or self.deleted or any(map(self.is_modified, self.dirty)))

    def close(self) -> None:
        """End the transaction, and forget the objects; see `sqlalchemy.orm.Session.close`."""
        super().close()
        self._let_go()

    def reset(self) -> None:
        """End the transaction, and forget the objects; the session stays usable. See `sqlalchemy.orm.Session.reset`."""
        super().reset()
        self._let_go()

    def _let_go(self) -> None:
        # A connection may be reserved for a statement that never ran. Without a transaction, no event releases it.
        for route in self._replicated:
            if route.has_begun:
                route.end()

    # Every statement of a session runs through one of these methods.
    if not TYPE_CHECKING:
        execute = _repeating("execute", "Run a statement, and return its result")
        scalar = _repeating("scalar", "Run a statement, and return the first column of its first row")
        scalars = _repeating("scalars", "Run a statement, and return the first column of its rows")
        connection = _repeating("connection", "Return the connection for a statement, which stays on one server")


@event.listens_for(RoutingSession, "after_begin")
def _begin(session: RoutingSession, _: SessionTransaction, connection: Connection) -> None:
    if connection.engine not in session._routes and not isinstance(connection.engine, SlaveEngine):
        session._route_of(connection.engine)  # a statement named this engine itself
    for route in session._replicated:
        route.begin_on(connection)


@event.listens_for(RoutingSession, "before_commit")
def _commit(session: RoutingSession) -> None:
    for route in session._replicated:
        route.refuse_if_lost()


@event.listens_for(RoutingSession, "after_transaction_end")
def _end(session: RoutingSession, _: SessionTransaction) -> None:
    if session._transaction is None:
        session._let_go()
