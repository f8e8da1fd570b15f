"""The choice of a server, without I/O: generators yield what they need, and `run` does it.

`choose` yields `Open`, `Ask` and `Wait`, and is sent a link, an answer, or `Failed`. So it is tested without servers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from replswitch.drivers import GONE
from replswitch.engine.servers import Open
from replswitch.errors import PositionError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from replswitch.decision import State
    from replswitch.drivers import Fault
    from replswitch.engine.port import Port
    from replswitch.engine.rotation import Rotation
    from replswitch.engine.servers import Link, Server
    from replswitch.positions import Position
    from replswitch.scope import Scope

logger = logging.getLogger("replswitch.servers")


class Ask(NamedTuple):
    """A request: ask the server of a link who it is and how far it has come; send ``(identity, position)``."""

    link: Link


class Wait(NamedTuple):
    """A request: wait until a server has reached a position; send True, or False after so many seconds."""

    link: Link
    position: Position
    seconds: float


class Failed(NamedTuple):
    """An answer: the driver's error, and what it means.

    The error has no traceback, which leads to frames that hold it: in that circle links would wait for Python's garbage
    collector.
    """

    error: Exception
    fault: Fault


R = TypeVar("R")


class Choice(NamedTuple):
    """A link that was chosen.

    Attributes:
        link: the link.
        side: the state in which it serves.
        why: the reason.
        holds: the master serves the database from now on, for this reason.
    """

    link: Link
    side: State
    why: str
    holds: bool = False


def choose(
    scope: Scope,
    key: object,
    candidates: Iterable[Server],
    must_see: Position | None,
    rotation: Rotation,
    *,
    wait: float = 0,
    is_last_resort: bool = False,
) -> Generator[Open | Ask | Wait, Any, Link | None]:
    """Choose the slave that serves the reads of a scope from now on.

    A slave that cannot be reached leaves rotation (F1, F4). One that lacks what must be seen makes room for the next,
    and is waited for last.

    Args:
        scope: the running one.
        key: what the database is called in scopes.
        candidates: the slaves, in the order in which they are to be tried; the scope's own first (S6).
        must_see: how far a slave must have come; None where any will do.
        rotation: what is known of the slaves.
        wait: seconds that the scope may wait, once, for a slave that is behind.
        is_last_resort: the master is gone as well, so the scope does not keep the choice.

    Returns:
        a link to the slave, or None if no slave can serve.

    Raises:
        Exception: the driver's own error, where it does not mean that a server is gone.
    """
    behind: Link | None = None
    for server in candidates:
        link = yield server.opening
        if type(link) is Failed:  # quicker than isinstance(), and on the way of every scope
            lose(scope, key, server, link.error, rotation)
            continue
        if rotation.resting:
            rotation.has_answered(server)
        if must_see is not None and not rotation.known.has_reached(link, must_see, scope.must_see_since):
            reached = yield from _ask_position(link, must_see, rotation)
            if isinstance(reached, Failed):
                lose(scope, key, server, reached.error, rotation)
                continue
            if not reached:
                scope.avoid_slave(key, server)  # what the scope must see only grows
                behind = behind or link
                continue
        if is_last_resort or (chosen := scope.slaves.setdefault(key, server)) is server:
            return link  # type: ignore[no-any-return]  # what was sent for Open
        # Another thread of the scope was faster.
        return (yield from choose(scope, key, (chosen,), must_see, rotation))
    if must_see is None or behind is None or not wait or scope.has_waited:
        return None
    scope.has_waited = True
    reached = yield Wait(behind, must_see, wait)
    if reached is True and (yield from has_reached(behind, must_see, scope, rotation)) is True:
        scope.slaves.setdefault(key, behind.server)
        return behind
    return None


def has_reached(
    link: Link, position: Position, scope: Scope, rotation: Rotation
) -> Generator[Open | Ask | Wait, Any, bool | Failed]:
    """Say whether the server of a link has reached a position. It is asked where that is not known (P2)."""
    is_known = rotation.known.has_reached(link, position, scope.must_see_since)
    return is_known or (yield from _ask_position(link, position, rotation))


def _ask_position(
    link: Link, position: Position, rotation: Rotation
) -> Generator[Open | Ask | Wait, Any, bool | Failed]:
    answer = yield Ask(link)
    if answer is None or isinstance(answer, Failed):
        return answer or False
    rotation.known.learn(link, *answer)
    reached = answer[1]
    return reached is not None and reached.includes(position)


def choose_master_read_only(
    server: Server, must_see: Position | None, scope: Scope, rotation: Rotation
) -> Generator[Open | Ask | Wait, Any, Link | Failed | None]:
    """Choose a link to the master that refuses writes, for a read that no slave can serve.

    Returns:
        the link; None where it leads to a server that lacks what must be seen, because another one is the master now.
    """
    link = yield server.opening
    if isinstance(link, Failed):
        return link
    rotation.has_answered(server)
    if link.identity is None:
        answer = yield Ask(link)  # who it is, once for each link
        if isinstance(answer, Failed):
            return None
        if answer is not None:
            rotation.known.learn(link, *answer)
    lacks = yield from master_lacks(link, must_see, scope, rotation)
    return None if lacks else link


def master_lacks(
    link: Link, must_see: Position | None, scope: Scope, rotation: Rotation
) -> Generator[Open | Ask | Wait, Any, bool]:
    """Say whether a link to the master leads to a former master, which lacks what must be seen.

    A server has what it has written itself. So it is asked only after a failover, for what another one has written;
    and only if it is known which server it is. One that does not answer lacks everything.
    """
    identity = link.identity or link.writes.identity
    if must_see is None or identity is None or must_see.is_written_by(identity):
        return False
    return (yield from has_reached(link, must_see, scope, rotation)) is not True


def lose(scope: Scope, key: object, server: Server, error: BaseException, rotation: Rotation) -> None:
    """Take a server out of rotation that cannot be reached, and leave it alone in this scope until it ends."""
    rotation.rest(server, error)
    scope.avoid_slave(key, server)


def run(steps: Generator[Open | Ask | Wait, Any, R], port: Port) -> R:
    """Do what a choice asks for, and return what it returns.

    Raises:
        Exception: the driver's own error for a question, where it does not mean that the server is gone.
    """
    answer: Any = None
    try:
        while True:
            request = steps.send(answer)
            if type(request) is not Open:  # quicker than isinstance(), likewise
                answer = _ask(request, port)  # type: ignore[arg-type]  # which mypy does not see
                continue
            server = request.server
            try:
                answer = port.open(server)
                if answer.opened_at < server.lost_at:  # it leads to where the server was lost
                    port.drop(server, answer)
                    answer = port.open(server)
            except (port.driver.module.Error, OSError) as error:  # whatever it is, the server does not serve now (F4)
                answer = Failed(error.with_traceback(None), port.driver.classify(error))
                port.drop(server)
    except StopIteration as done:
        result: R = done.value
        return result


def _ask(request: Ask | Wait, port: Port) -> Any:
    """Return a server's answer; `Failed` if it is gone, None if the answer says nothing."""
    driver, link = port.driver, request.link
    if link.writes.streams:
        return None  # nothing can be asked before its rows are read (S6)
    try:
        if isinstance(request, Ask):
            return driver.fetch_position(link.raw)
        return driver.wait_for(link.raw, request.position, request.seconds)
    except driver.module.Error as error:
        fault = driver.classify(error, link.raw)
        if fault not in GONE and isinstance(request, Ask):
            raise
        logger.info("The server %s did not tell its position: %s", link.server.name, error)
        failed = Failed(error.with_traceback(None), fault)
    except PositionError as error:
        logger.warning("A server's position cannot be read, so it counts as behind: %s", error)
        return None
    if fault in GONE:
        port.drop(link.server, link)
    return failed
