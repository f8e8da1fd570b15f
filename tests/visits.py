"""A visitor who writes, and then reads while replication is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from webob import Request

from replswitch.decorators import use_slave
from replswitch.testing import ReplicatedPair
from replswitch.wsgi import ReplicationMiddleware


def post_and_read(
    pair: ReplicatedPair, work: Callable[[ExitStack], None], number: Callable[[], int], *, own_read: bool = False
) -> str:
    """Send a POST, and check that its visitor then sees the write, and other visitors do not. Return the cookie.

    Args:
        pair: the servers. Replication is stopped.
        work: what the POST does. What it puts into the stack stays open until the visitor has read.
        number: returns the number of rows.
        own_read: the POST itself must see its write, too.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            work(kept)
            if own_read:
                with use_slave():
                    assert number() > 0
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done" if environ["REQUEST_METHOD"] == "POST" else str(number()).encode()]

    wrapped = ReplicationMiddleware(application, secret="of the tests")
    pair.stop_slave()
    with ExitStack() as kept:
        (cookie,) = Request.blank("/", method="POST").get_response(wrapped).headers.getall("Set-Cookie")
        read = Request.blank("/", headers={"Cookie": cookie.partition(";")[0]})
        assert int(read.get_response(wrapped).text) > 0
        assert Request.blank("/").get_response(wrapped).text == "0"
    return str(cookie)
