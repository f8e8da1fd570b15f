"""A view sends a request to its own project. Both requests see each other's writes, and the visitor sees both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.wsgi import WSGIHandler
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from tests.test_django.requests.board import Site, answer, board, connection, shown, write

from django_replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.test_django.requests.conftest import Visitors

    Ask = Callable[[str, str], str]


def through_get_response(method: str, url: str) -> str:
    """Make the request as batch endpoints do: with the handler's ``get_response``."""
    response: Any = WSGIHandler().get_response(RequestFactory().generic(method, url))
    return str(response.content.decode())


def through_call(method: str, url: str) -> str:
    """Make the request as a server does: its signals close old connections."""
    at, _, query = url.partition("?")
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": at, "QUERY_STRING": query}
    setup_testing_defaults(environ)
    response: Any = WSGIHandler()(environ, lambda *_: lambda _: None)
    try:
        return b"".join(response).decode()
    finally:
        response.close()


def through_client(method: str, url: str) -> str:
    """Make the request as Django's test client does."""
    response: Any = Client().generic(method, url)
    return b"".join(response).decode()


@pytest.fixture(params=[through_get_response, through_call, through_client])
def ask(request: pytest.FixtureRequest) -> Ask:
    """The ways in which a view can send a request to its own project."""
    found: Ask = request.param
    return found


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    """Write ``?n=…`` between two pieces, and show the board in the last one."""

    def pieces() -> Iterator[str]:
        yield "begun "
        if request.method == "POST":
            write(request.GET["n"])
        yield shown()

    return StreamingHttpResponse(pieces())


def test_m1_a_post_and_its_inner_requests_see_the_writes_of_each_other(
    site: Site, new_visitor: Visitors, ask: Ask
) -> None:
    found: list[str] = []

    def batch(request: HttpRequest) -> HttpResponse:
        write(2)
        found.append(ask("GET", "/"))
        ask("POST", "/?n=3")
        with use_slave():
            found.append(shown())
        found.append(ask("GET", "/"))
        return answer("done")

    site.serve(batch=batch)
    site.pair.lag = 60
    visitor = new_visitor()
    page = visitor.post("/batch")
    assert found == ["1 2", "1 2 3", "1 2 3"]
    (marker,) = page.markers
    assert int(marker["max-age"]) > 60, "the position was not known"
    assert visitor.get().text == "1 2 3"
    assert new_visitor().get().text == "1"
    site.assert_lagged(3)


def test_m1_a_get_sees_what_an_inner_post_has_written(site: Site, new_visitor: Visitors, ask: Ask) -> None:
    def page(request: HttpRequest) -> HttpResponse:
        before = shown()
        ask("POST", "/?n=2")
        return answer(f"{before}, {shown()}")

    site.serve(page=page)
    site.pair.lag = 60
    visitor = new_visitor()
    seen = visitor.get("/page")
    assert seen.text == "1, 1 2"
    assert seen.sides == ["slave", "master"]
    assert visitor.get().text == "1 2"
    site.assert_lagged()


def test_m1_an_inner_request_in_an_atomic_block_is_part_of_the_transaction_of_the_block(
    site: Site, new_visitor: Visitors, ask: Ask
) -> None:
    found: list[str] = []

    @transaction.atomic
    def batch(request: HttpRequest) -> HttpResponse:
        write(2)
        ask("POST", "/?n=3")
        found.append(ask("GET", "/"))
        return answer("done")

    site.serve(batch=batch)
    site.pair.lag = 60
    visitor = new_visitor()
    visitor.post("/batch")
    assert found == ["1 2 3"]
    assert visitor.get().text == "1 2 3"
    site.assert_lagged(3)


def test_m1_an_inner_request_that_only_reads_makes_no_marker(site: Site, new_visitor: Visitors, ask: Ask) -> None:
    def page(request: HttpRequest) -> HttpResponse:
        return answer(ask("GET", "/"))

    site.serve(page=page)
    seen = new_visitor().get("/page")
    assert (seen.text, seen.markers) == ("1", [])


def test_m1_the_position_of_a_write_is_known_after_an_inner_request_has_closed_the_connection(
    site: Site, new_visitor: Visitors
) -> None:
    """Django's handler closes it if CONN_MAX_AGE is 0."""

    def page(request: HttpRequest) -> HttpResponse:
        write(2)
        return answer(through_call("GET", "/"))

    site.serve(page=page)
    site.pair.lag = 60
    seen = new_visitor().post("/page")
    assert seen.text == "1 2"
    (marker,) = seen.markers
    assert int(marker["max-age"]) > 60
    site.assert_lagged()


@pytest.mark.parametrize("ask", [through_call, through_client])
def test_m1_a_write_of_an_inner_streamed_response_is_recorded_for_the_outer_request(
    site: Site, new_visitor: Visitors, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    def page(request: HttpRequest) -> HttpResponse:
        return answer(f"{ask('POST', '/streamed?n=2')}, {ask('GET', '/streamed')}, {shown()}")

    site.serve(page=page, streamed=streamed)
    site.pair.lag = 60
    visitor = new_visitor()
    assert visitor.get("/page").text == "begun 1 2, begun 1 2, 1 2"
    assert visitor.get().text == "1 2"
    site.assert_lagged()
    assert "after the response's headers" not in caplog.text


def test_m1_the_rest_of_a_streamed_response_sees_the_write_of_an_inner_request(site: Site, ask: Ask) -> None:
    """The response's headers are sent, so it gets no marker, and a log line says so."""

    def page(request: HttpRequest) -> StreamingHttpResponse:
        def pieces() -> Iterator[str]:
            yield f"{shown()}, "
            ask("POST", "/?n=2")
            yield shown()

        return StreamingHttpResponse(pieces())

    site.serve(page=page)
    site.pair.lag = 60
    assert site.visitor().get("/page").text == "1, 1 2"
    site.assert_lagged()


def test_m1_async_views_and_their_inner_requests_see_the_writes_of_each_other(
    site: Site, new_visitor: Visitors
) -> None:
    found: list[str] = []

    async def batch(request: HttpRequest) -> HttpResponse:
        await sync_to_async(write)(2)
        client: Any = AsyncClient()
        found.append((await client.get("/")).content.decode())
        await client.post("/?n=3")
        with use_slave():
            found.append(await sync_to_async(shown)())
        return answer("done")

    site.serve(batch=batch)
    site.pair.lag = 60
    visitor = new_visitor()
    page = visitor.post("/batch")
    assert found == ["1 2", "1 2 3"]
    (marker,) = page.markers
    assert int(marker["max-age"]) > 60, "the position was not known"
    assert visitor.get().text == "1 2 3"
    site.assert_lagged(3)


def test_m1_decorated_views_and_their_inner_requests_see_the_writes_of_each_other(
    site: Site, new_visitor: Visitors, ask: Ask
) -> None:
    found: list[str] = []

    @use_master
    def batch(request: HttpRequest) -> HttpResponse:
        write(2)
        found.append(ask("GET", "/read"))
        ask("POST", "/?n=3")
        with use_slave():
            found.append(shown())
        return answer("done")

    @use_slave
    def read(request: HttpRequest) -> HttpResponse:
        return answer(shown())

    site.change(MIDDLEWARE=[])
    site.serve(root=use_master(board), batch=batch, read=read)
    site.pair.lag = 60
    visitor = new_visitor()
    assert len(visitor.post("/batch").markers) == 1
    assert found == ["1 2", "1 2 3"]
    assert visitor.get("/read").text == "1 2 3"
    site.assert_lagged(3)


def test_m1_an_inner_request_leaves_the_transaction_of_the_outer_request_open(site: Site, ask: Ask) -> None:
    """The signals of Django's handler close old connections, but the outer request is still using its own."""
    found: list[str] = []

    def page(request: HttpRequest) -> HttpResponse:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO project_message (body) VALUES ('2')")
            found.append(ask("GET", "/"))
            cursor.execute("COMMIT")
        return answer("done")

    site.serve(page=page)
    assert site.visitor().post("/page").text == "done"
    assert found == ["1 2"]
    assert site.on("master") == "1 2"
