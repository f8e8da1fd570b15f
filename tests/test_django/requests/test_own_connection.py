"""``connection.connection``, the driver's connection, is on the side that the state asks for. Its writes are marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from tests.test_django.project.models import Message
from tests.test_django.requests.board import Site, answer, connection, page_of, shown, write

from django_replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def persistent(site: Site) -> Iterator[Site]:
    """A site whose connections stay open after a request, as with CONN_MAX_AGE."""
    for alias in connections:
        connections[alias].settings_dict["CONN_MAX_AGE"] = None
    yield site
    for alias in connections:
        connections[alias].settings_dict["CONN_MAX_AGE"] = 0


def own(sql: str) -> Any:
    """Run a statement with a cursor of the driver, which Django does not see."""
    kind = connection.connection.cursorclass if hasattr(connection.connection, "cursorclass") else None
    with connection.connection.cursor(kind) as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def own_shown() -> str:
    return " ".join(body for (body,) in own("SELECT body FROM project_message ORDER BY id"))


def own_write() -> None:
    own("INSERT INTO project_message (body) VALUES ('2')")


def own_write_in_a_block() -> None:
    with transaction.atomic():
        own_write()


def own_write_and_then_a_query_of_django() -> None:
    own_write()
    Message.objects.count()


@pytest.mark.parametrize("work", [own_write, own_write_in_a_block, own_write_and_then_a_query_of_django])
def test_m1_a_write_on_the_drivers_connection_runs_on_the_master_and_is_marked(
    persistent: Site, work: Callable[[], None]
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        work()
        with use_slave():
            assert shown() == "1 2"
        return answer("written")

    persistent.serve(view=view)
    persistent.pair.lag = 60
    assert persistent.visitor().get().sides == ["slave"]
    visitor = persistent.visitor()
    (marker,) = visitor.post("/view").markers
    assert int(marker["max-age"]) > 60
    assert visitor.get().text == "1 2"
    assert persistent.visitor().get().text == "1"
    persistent.assert_lagged()


def test_s6_a_read_on_the_drivers_connection_runs_on_the_side_of_the_request(persistent: Site) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        connection.ensure_connection()
        return answer(own_shown())

    persistent.serve(view=view)
    persistent.pair.lag = 60
    write(2)
    assert persistent.visitor().get("/view").text == "1"
    assert persistent.visitor().post("/view").text == "1 2"
    assert persistent.visitor().get("/view").text == "1"
    assert persistent.visitor().post("/view").markers == []
    persistent.assert_lagged()


def test_s6_a_read_on_the_drivers_connection_follows_use_master_and_use_slave(persistent: Site) -> None:
    persistent.pair.lag = 60
    write(2)
    with use_slave():
        assert shown() == "1"
        assert own_shown() == "1"
        with connection.use_master():
            assert own_shown() == "1 2"
        assert own_shown() == "1"
    assert own_shown() == "1 2"


def test_s6_the_drivers_connection_is_none_before_the_first_statement(site: Site) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return answer(connection.connection is None)

    site.serve(view=view)
    connection.close()
    response: Any = Client().get("/view")
    assert page_of(response, response).text == "True"


def test_s6_the_drivers_connection_is_open_in_a_transaction_before_its_first_statement(site: Site) -> None:
    site.pair.lag = 60
    write(2)
    for switch, text in ((use_slave, "1"), (use_master, "1 2")):
        connection.close()
        with switch(), transaction.atomic():
            assert connection.connection is not None
            assert own_shown() == shown() == text
            connection.close()
            assert connection.connection is None
    connection.set_autocommit(False)
    assert own_shown() == "1 2"
    connection.rollback()
    connection.set_autocommit(True)
