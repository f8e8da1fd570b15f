"""Report the statements on replicated engines to the observers; see `replswitch.watching`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from replswitch.sqlalchemy.engines import switch_of
from replswitch.sqlalchemy.opening import route_of
from replswitch.sqlalchemy.pooled import LINK
from replswitch.watching import Probe, add_probe, report

if TYPE_CHECKING:
    from sqlalchemy import Connection


class EngineProbe(Probe):
    """Reports the statements on all engines that are replicated, in sessions and outside sessions."""

    def start(self) -> None:
        """On all engines, listen to the event that SQLAlchemy sends after each statement."""
        event.listen(Engine, "after_cursor_execute", _ran)

    def stop(self) -> None:
        """Stop listening to that event."""
        event.remove(Engine, "after_cursor_execute", _ran)


def _ran(connection: Connection, _: Any, statement: str, *__: Any) -> None:
    link = connection.info.get(LINK)
    if link is None:
        return
    of_session = route_of(connection)
    if of_session is not None:
        route = of_session.route
        report(statement, route.database.name, route.side, link.server.name, route.reason)
        return
    switch = switch_of(connection.engine)
    name = (connection.engine.url.database or "") if switch is None else switch.database.name
    report(statement, name, link.server.state, link.server.name, "engine")


add_probe(EngineProbe())
