"""The message board on the pair, and the doors through which visitors come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.test_django.requests.board import Site, Visitor, live_server, through_asgi, through_wsgi, write

if TYPE_CHECKING:
    from tests.test_django.project.dialect import Pair

Visitors = Callable[[], Visitor]


@pytest.fixture
def site(django_pair: Pair) -> Iterator[Site]:
    """The board with one message, ``1``, on a pair without a lag."""
    write(1)
    django_pair.wait_caught_up()
    with ExitStack() as exits:
        yield Site(django_pair, exits)


@pytest.fixture(params=["wsgi", "asgi", "live"])
def new_visitor(site: Site, request: pytest.FixtureRequest) -> Iterator[Visitors]:
    """Makes visitors who come through the test client, the asynchronous one, and over HTTP to a live server."""
    if request.param == "live":
        with live_server() as door:
            yield lambda: Visitor(door)
    else:
        doors = {"wsgi": through_wsgi, "asgi": through_asgi}
        yield lambda: Visitor(doors[request.param])
