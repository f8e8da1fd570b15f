"""The round trips of requests, behind proxies that delay the answers of the servers, compared with stock Django."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from tests.round_trips import RoundTrips
from tests.test_django.backend.asking import connect, default_with, forget
from tests.test_django.project.models import Message
from tests.test_django.project.served import DRIVER, PROJECT
from tests.test_django.requests.board import board, connection

from replswitch.testing import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.test_django.requests.board import Site

ASKS = int(DRIVER in {"mysqlclient", "psycopg2"})
"""The questions after a write outside a transaction: these drivers do not show whether it has written."""

ASKS_IN_BLOCKS = int(DRIVER == "mysqlclient")
"""The same after a transaction."""


@pytest.fixture
def trips(site: Site) -> Iterator[RoundTrips]:
    """Counts round trips. The project connects to both servers through proxies."""
    with ExitStack() as stack:
        servers = (site.pair.master, *site.pair.slaves)
        proxies = [stack.enter_context(Proxy(server["port"])) for server in servers]
        master, slave = proxies
        stack.enter_context(default_with({"PORT": slave.port}, PORT=master.port))
        yield RoundTrips(*proxies)


@pytest.fixture
def stock(trips: RoundTrips) -> Iterator[str]:
    """An alias with Django's own backend, through the same proxy."""
    made = connect(**{**connection.settings_dict, "ENGINE": f"django.db.backends.{PROJECT.backend}"})
    yield made.alias
    forget(made)


def create(alias: str) -> None:
    Message.objects.using(alias).create(body="x")


def create_in_a_block(alias: str) -> None:
    with transaction.atomic(using=alias):
        create(alias)


@transaction.atomic
def atomic_board(request: HttpRequest) -> HttpResponse:
    return board(request)


def test_p1_requests_take_no_more_round_trips_than_stock_django(site: Site, trips: RoundTrips, stock: str) -> None:
    site.serve(atomic=atomic_board)
    create(stock)
    visitor = site.visitor()
    for send in (visitor.get, visitor.post, visitor.get):  # the links are open from here on
        send("/?n=2")
    site.pair.wait_caught_up()
    visitor.get()
    assert trips(site.visitor().get) == 1
    assert trips(lambda: create(stock)) == 1
    assert trips(lambda: visitor.post("/?n=3")) == 1 + ASKS
    site.pair.wait_caught_up()
    assert trips(visitor.get) == 2  # the first one asks how far the slave is
    assert trips(visitor.get) == 1
    assert trips(lambda: visitor.post("/atomic?n=4")) == trips(lambda: create_in_a_block(stock)) + ASKS_IN_BLOCKS
