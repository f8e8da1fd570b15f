"""Choose a server. Generators yield each I/O operation that they need, and `run` executes it.

`choose` yields `Open`, `Ask` and `Wait`, and receives a link, an answer, or `Failed`. So tests of `choose` need no
servers. `choose_slave` needs no generator if the first slave that it tries may serve, which is the common case.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

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
    """A request to `run` to query the identity and the position of a link's server. The answer is a tuple of both."""

    link: Link


class Wait(NamedTuple):
    """A request to `run` to wait until a server has reached a position. The answer is True; False after ``seconds``."""

    link: Link
    position: Position
    seconds: float


class Failed(NamedTuple):
    """The answer of `run` if an operation has failed. It consists of the driver's error and its meaning.

    The error's traceback is removed. It would refer to frames that hold the error, and this reference cycle would keep
    links open until Python's garbage collector runs.
    """

    error: Exception
    fault: Fault


R = TypeVar("R")


Choice: TypeAlias = "tuple[Link, State, str, bool]"
"""The chosen link; the state that it serves; the reason for the choice; and whether the master serves the database from
now on, for this reason. It is a plain tuple, because a NamedTuple takes much longer to create."""


def choose_slave(
    scope: Scope, key: object, must_see: Position | None, rotation: Rotation, wait: float, port: Port
) -> Link | None:
    """Choose the slave that serves the reads of a scope from now on. See `choose` for what it takes and returns."""
    first = rotation.first(scope, port)
    if first is not None:
        try:
            link = port.open(first)
        except (port.driver.module.Error, OSError) as error:  # as in `run`
            port.drop(first)
            lose(scope, key, first, error.with_traceback(None), rotation)
            first = None
        else:
            if (
                (must_see is None or rotation.known.has_reached(link, must_see, scope.must_see_since))
                and not rotation.resting
                and link.opened_at >= first.lost_at
                and scope.slaves.setdefault(key, first) is first
            ):
                return link
    candidates = rotation.candidates(scope, port, first)
    return run(choose(scope, key, candidates, must_see, rotation, wait), port)


def choose(
    scope: Scope,
    key: object,
    candidates: Iterable[Server],
    must_see: Position | None,
    rotation: Rotation,
    wait: float = 0,
    *,
    is_last_resort: bool = False,
) -> Generator[Open | Ask | Wait, Any, Link | None]:
    """Choose the slave that serves the reads of a scope from now on.

    An unreachable slave is taken out of rotation (F1, F4). If a slave has not reached ``must_see``, the next slave is
    tried; waiting for a slave to catch up is the last step.

    Args:
        scope: the running scope.
        key: the key of the database in scopes.
        candidates: the slaves, in the order to try them; the slave that the scope already uses comes first (S6).
        must_see: the position that a slave must have reached; None if any slave may serve.
        rotation: which slaves are in rotation, and their positions.
        wait: seconds that the scope may wait, once, for a slave that has not caught up.
        is_last_resort: the master is lost as well, so the scope does not keep the chosen slave for later reads.

    Returns:
        a link to the slave, or None if no slave can serve.

    Raises:
        Exception: the driver's own error, if it does not mean that a server is gone.
    """
    behind: Link | None = None
    for server in candidates:
        link = yield server.opening
        if type(link) is Failed:  # faster than isinstance(), and every scope runs this line
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
                scope.avoid_slave(key, server)  # later reads of the scope must see this position as well
                behind = behind or link
                continue
        if is_last_resort or (chosen := scope.slaves.setdefault(key, server)) is server:
            return link  # type: ignore[no-any-return]  # the answer to Open
        # Another thread of the scope has chosen a slave first.
        return (yield from choose(scope, key, (chosen,), must_see, rotation))
    if must_see is None or behind is None or not wait or scope.has_waited:
        return None
    scope.has_waited = True
    reached = yield Wait(behind, must_see, wait)
    has_caught_up = reached is True and (yield from has_reached(behind, must_see, scope, rotation)) is True
    rotation.has_waited(behind.server, has_caught_up=has_caught_up)
    if has_caught_up:
        scope.slaves.setdefault(key, behind.server)
        return behind
    return None


def has_reached(
    link: Link, position: Position, scope: Scope, rotation: Rotation
) -> Generator[Open | Ask | Wait, Any, bool | Failed]:
    """Return whether the server of a link has reached a position. If this is not known, query the server (P2)."""
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
    """Choose a read-only link to the master, for a read that no slave can or may serve.

    Returns:
        the link; `Failed` if the link could not be opened; None if the link leads to a former master, which lacks
        ``must_see`` after a failover, or if the server did not report its identity.
    """
    link = yield server.opening
    if isinstance(link, Failed):
        return link
    rotation.has_answered(server)
    if link.identity is None and must_see is not None:
        answer = yield Ask(link)  # for its identity, once for each link
        if isinstance(answer, Failed):
            return None
        if answer is not None:
            rotation.known.learn(link, *answer)
    lacks = yield from master_lacks(link, must_see, scope, rotation)
    return None if lacks else link


def master_lacks(
    link: Link, must_see: Position | None, scope: Scope, rotation: Rotation
) -> Generator[Open | Ask | Wait, Any, bool]:
    """Return whether the server of a link to the master is a former master, which lacks ``must_see``.

    A server has all writes that were made on it. So its position is queried only if its identity is known, and if
    ``must_see`` has writes of another server, as after a failover. A server that does not answer is treated as a
    former master.
    """
    identity = link.identity or link.writes.identity
    if must_see is None or identity is None or must_see.is_written_by(identity):
        return False
    return (yield from has_reached(link, must_see, scope, rotation)) is not True


def lose(scope: Scope, key: object, server: Server, error: BaseException, rotation: Rotation) -> None:
    """Take an unreachable server out of rotation, and do not use it again in this scope."""
    rotation.rest(server, error)
    scope.avoid_slave(key, server)


def run(steps: Generator[Open | Ask | Wait, Any, R], port: Port) -> R:
    """Execute the operations that a generator such as `choose` yields, and return the generator's result.

    Raises:
        Exception: the driver's own error from an `Ask`, unless it means that the server is gone.
    """
    answer: Any = None
    try:
        while True:
            request = steps.send(answer)
            if type(request) is not Open:  # faster than isinstance(), as above
                answer = _ask(request, port)  # type: ignore[arg-type]  # mypy does not narrow the type here
                continue
            server = request.server
            try:
                answer = port.open(server)
                if answer.opened_at < server.lost_at:  # the link is older than the loss of the server
                    port.drop(server, answer)
                    answer = port.open(server)
            except (port.driver.module.Error, OSError) as error:  # after any error, try another server (F4)
                answer = Failed(error.with_traceback(None), port.driver.classify(error))
                port.drop(server)
    except StopIteration as done:
        result: R = done.value
        return result


def _ask(request: Ask | Wait, port: Port) -> Any:
    """Return a server's answer; `Failed` after an error of the driver; None without a usable answer."""
    driver, link = port.driver, request.link
    if link.writes.streams:
        return None  # no query can be sent on a connection with unread rows (S6)
    try:
        if isinstance(request, Ask):
            return driver.fetch_position(link.raw)
        return driver.wait_for(link.raw, request.position, request.seconds)
    except driver.module.Error as error:
        fault = driver.classify(error, link.raw)
        if fault not in GONE and isinstance(request, Ask):
            raise
        logger.info("The server %s did not report its position: %s", link.server.name, error)
        failed = Failed(error.with_traceback(None), fault)
    except PositionError as error:
        text = "The position of the server %s cannot be read, so it is treated as a server that has not caught up: %s"
        logger.warning(text, link.server.name, error)
        return None
    if fault in GONE:
        port.drop(link.server, link)
    return failed
