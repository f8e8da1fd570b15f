"""Links that join a session's transaction late: not when they are chosen, but when the session connects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers import Driver
from replswitch.engine.route import Route
from replswitch.engine.servers import Link

if TYPE_CHECKING:
    from replswitch.engine.attempt import Attempt, Block
    from replswitch.engine.servers import Server
    from replswitch.scope import Scope

#: Of a link without a connection.
_NOT_CONNECTED: Final = Driver()


class MasterLink(Link):
    """The master as a session knows it: a link that has a connection only while the session's transaction has one."""

    __slots__ = ()

    def __init__(self, server: Server) -> None:
        super().__init__(server, None, _NOT_CONNECTED)

    def connect(self, link: Link) -> None:
        """Take the connection of another link: the session has got it."""
        self.raw, self.writes, self.readable = link.raw, link.writes, link.readable

    def disconnect(self) -> None:
        """Have no connection any more."""
        self.connect(Link(self.server, None, _NOT_CONNECTED))


class LateRoute(Route):
    """A route whose links join the transaction when the session connects.

    Attributes:
        held: the scope that the master will serve from then on, and the reason; None where only this statement.
    """

    held: tuple[Scope, str] | None = None

    def choose(self, *args: Any, **options: Any) -> Link:
        """Choose anew; see `replswitch.engine.selection.Selection.choose`."""
        self.held = None
        return super().choose(*args, **options)

    def _join(self, block: Block, link: Link, attempt: Attempt | None) -> Link | None:
        return None

    def _hold(self, scope: Scope, why: str) -> None:
        self.held = scope, why

    def look_for_writes(self, link: Link, *, recorded: bool = True) -> None:
        """Nothing: `replswitch.sqlalchemy.commits` looks, also where no session is concerned."""
