"""Streamed responses: the state holds while a piece is produced and while the rest is closed, never between (S9)."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from tests.test_django.project.models import Message
from tests.test_django.requests.asgi import Exchange
from tests.test_django.requests.board import MIDDLEWARE, Site, connection, shown, write

from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.test_django.requests.board import Page

SIDES = pytest.mark.parametrize(("method", "side"), [("GET", "slave"), ("POST", "master")])


class Streamed:
    """A view whose pieces are the states that they are produced in; it remembers what happens at the end.

    Attributes:
        ends: the state in which each generator was closed, or came to its end.
    """

    def __init__(self) -> None:
        self.ends: list[str] = []

    def __call__(self, request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(self.pieces())

    def pieces(self) -> Iterator[str]:
        try:
            for _ in range(3):
                yield connection.state
        finally:
            self.ends.append(f"{connection.state} {shown()}")


class StreamedAsync(Streamed):
    """The same, asynchronous."""

    async def view(self, request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(self.async_pieces())

    async def async_pieces(self) -> AsyncIterator[str]:
        try:
            for _ in range(3):
                yield connection.state
                await asyncio.sleep(0)
        finally:
            self.ends.append(f"{connection.state} {await sync_to_async(shown)()}")


def found(side: str) -> str:
    return f"{side} 1" if side == "slave" else f"{side} 1 2"


@SIDES
def test_s9_each_chunk_and_close_have_the_state_of_the_request(site: Site, method: str, side: str) -> None:
    view = Streamed()
    site.serve(view=view)
    site.pair.stop_slave()
    write(2)
    response: Any = Client().generic(method, "/view")
    pieces = iter(response.streaming_content)
    for _ in range(3):
        assert stack() is None
        assert connection.state == "master"
        assert next(pieces) == side.encode()
    assert next(pieces, None) is None
    assert stack() is None
    assert view.ends == [found(side)]
    site.assert_lagged()


@SIDES
def test_s9_a_response_closed_early_is_closed_in_its_state(site: Site, method: str, side: str) -> None:
    view = Streamed()
    site.serve(view=view)
    site.pair.stop_slave()
    write(2)
    response: Any = Client().generic(method, "/view")
    assert next(iter(response.streaming_content)) == side.encode()
    response.close()
    assert stack() is None
    assert view.ends == [found(side)]
    site.assert_lagged()


@SIDES
def test_s9_a_disconnect_under_wsgi_closes_the_response_in_its_state(site: Site, method: str, side: str) -> None:
    """As PEP 3333 has it: the server closes what the application has returned."""
    view = Streamed()
    site.serve(view=view)
    environ = RequestFactory().generic(method, "/view").environ
    result: Any = get_wsgi_application()(environ, lambda *_: lambda _: None)
    assert next(iter(result)) == side.encode()
    result.close()
    assert stack() is None
    assert [end.partition(" ")[0] for end in view.ends] == [side]


@SIDES
def test_s9_chunks_produced_by_several_threads_have_the_state_of_the_request(
    site: Site, method: str, side: str
) -> None:
    site.serve(view=Streamed())
    response: Any = Client().generic(method, "/view")
    pieces = iter(response.streaming_content)

    def take() -> Any:
        try:
            return next(pieces)
        finally:
            connection.close()

    taken = []
    for _ in range(3):
        with ThreadPoolExecutor(1) as executor:
            taken.append(executor.submit(take).result())
    response.close()
    assert taken == [side.encode()] * 3


def test_s9_two_interleaved_responses_keep_their_own_states(site: Site) -> None:
    site.serve(view=Streamed())
    get: Any = Client().get("/view")
    post: Any = Client().post("/view")
    assert list(zip(get.streaming_content, post.streaming_content, strict=True)) == [(b"slave", b"master")] * 3
    assert stack() is None


def test_s9_a_switch_made_by_a_chunk_holds_until_the_end_of_the_response(site: Site) -> None:
    def pieces() -> Iterator[str]:
        yield connection.state
        connection.use_master()
        yield connection.state
        yield connection.state
        connection.revert()
        yield connection.state
        connection.use_master()

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(pieces())

    site.serve(view=view)
    response: Any = Client().get("/view")
    seen = []
    for piece in response.streaming_content:
        seen.append(piece)
        assert stack() is None
    assert seen == [b"slave", b"master", b"master", b"slave"]
    assert stack() is None


def test_s9_a_chunk_that_raises_leaves_no_state(site: Site) -> None:
    def pieces() -> Iterator[str]:
        yield connection.state
        connection.use_master()
        raise LookupError(connection.state)

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(pieces())

    site.serve(view=view)
    response: Any = Client().get("/view")
    stream = iter(response.streaming_content)
    assert next(stream) == b"slave"
    with pytest.raises(LookupError, match="master"):
        next(stream)
    assert stack() is None
    assert site.visitor().get().side == "slave"


def serve_one(method: str, **left: Any) -> Page:
    """One request for /view through Django's ASGI application."""
    application = get_asgi_application()

    async def main() -> Page:
        page = await Exchange(method, "/view", **left).run(application)
        assert stack() is None
        gc.collect()  # and then what the event loop has to clean up
        for _ in range(5):
            await asyncio.sleep(0.01)
        return page

    return async_to_sync(main)()


@SIDES
def test_s9_async_chunks_are_produced_in_the_state_of_the_request(site: Site, method: str, side: str) -> None:
    view = StreamedAsync()
    site.serve(view=view.view)
    site.pair.stop_slave()
    write(2)
    assert serve_one(method).text == side * 3
    assert view.ends == [found(side)]
    site.assert_lagged()


@SIDES
def test_s9_a_disconnect_closes_async_chunks_in_their_state(site: Site, method: str, side: str) -> None:
    view = StreamedAsync()
    site.serve(view=view.view)
    site.pair.stop_slave()
    write(2)
    assert serve_one(method, leave_after=1).text == side
    assert view.ends == [found(side)]
    site.assert_lagged()


def test_s9_no_state_is_held_between_async_chunks(site: Site) -> None:
    site.serve(view=StreamedAsync().view)

    async def main() -> list[bytes]:
        response: Any = await AsyncClient().get("/view")
        seen = []
        async for piece in response.streaming_content:
            assert stack() is None
            seen.append(piece)
        return seen

    assert async_to_sync(main)() == [b"slave"] * 3


def test_s9_interleaved_async_responses_keep_their_own_states(site: Site) -> None:
    site.serve(view=StreamedAsync().view)
    application = get_asgi_application()

    async def main() -> list[str]:
        pages = await asyncio.gather(*(Exchange(method, "/view").run(application) for method in ("GET", "POST") * 5))
        return [page.text for page in pages]

    assert async_to_sync(main)() == ["slave" * 3, "master" * 3] * 5


@SIDES
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_s9_sync_chunks_under_asgi_are_produced_in_the_state_of_the_request(site: Site, method: str, side: str) -> None:
    view = Streamed()
    site.serve(view=view)
    site.pair.stop_slave()
    write(2)
    assert serve_one(method).text == side * 3
    assert view.ends == [found(side)]
    site.assert_lagged()


@SIDES
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
def test_s9_async_chunks_under_wsgi_are_produced_in_the_state_of_the_request(
    site: Site, method: str, side: str
) -> None:
    view = StreamedAsync()
    site.serve(view=view.view)
    environ = RequestFactory().generic(method, "/view").environ
    result: Any = get_wsgi_application()(environ, lambda *_: lambda _: None)
    assert b"".join(result) == side.encode() * 3
    result.close()
    assert [end.partition(" ")[0] for end in view.ends] == [side]
    assert stack() is None


@SIDES
def test_s9_chunks_wrapped_by_other_middleware_have_the_state_of_the_request(
    site: Site, method: str, side: str
) -> None:
    view = Streamed()
    site.change(MIDDLEWARE=[MIDDLEWARE, "django.middleware.gzip.GZipMiddleware"])
    site.serve(view=view)
    response: Any = Client().generic(method, "/view", headers={"Accept-Encoding": "gzip"})
    assert response["Content-Encoding"] == "gzip"
    b"".join(response.streaming_content)
    assert [end.partition(" ")[0] for end in view.ends] == [side]


def test_a_file_response_is_passed_to_the_server_unchanged(site: Site) -> None:
    def view(request: HttpRequest) -> FileResponse:
        return FileResponse(io.BytesIO(b"content"))

    site.serve(view=view)
    environ = RequestFactory().get("/view").environ
    environ["wsgi.file_wrapper"] = lambda file, size: ["handed over", file.read()]
    result: Any = get_wsgi_application()(environ, lambda *_: lambda _: None)
    assert list(result) == ["handed over", b"content"]
    assert Client().get("/view").getvalue() == b"content"


# Markers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_m7_a_write_before_the_first_chunk_is_marked(site: Site, method: str) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        write(2)
        return StreamingHttpResponse(iter([shown()]))

    site.serve(view=view)
    site.pair.stop_slave()
    visitor = site.visitor()
    page = visitor.send(method, "/view")
    assert (page.text, len(page.markers)) == ("1 2", 1)
    assert visitor.get().text == "1 2"
    site.assert_lagged()


def late(write_late: Callable[[], object]) -> Callable[[HttpRequest], HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        def pieces() -> Iterator[str]:
            yield "first"
            write_late()
            write_late()
            yield "last"

        return StreamingHttpResponse(pieces())  # type: ignore[return-value]  # of HttpResponseBase, as any

    return view


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("replswitch")]


def test_m7_a_commit_after_the_headers_is_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # Not create(): with mysqlclient nobody knows in time whether a statement that returns rows has written.
    site.serve(view=late(lambda: Message.objects.update(body=str(next(bodies)))))
    bodies = iter((2, 3))
    with caplog.at_level(logging.WARNING, "replswitch"):
        page = site.visitor().post("/view")
    assert (page.text, page.markers) == ("firstlast", [])
    (message,) = warnings(caplog)
    assert "A write was committed after the response's headers were sent" in message
    assert site.on("master") == "3"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_m7_chunks_that_only_read_log_nothing(site: Site, method: str, caplog: pytest.LogCaptureFixture) -> None:
    site.serve(view=late(shown))
    with caplog.at_level(logging.WARNING, "replswitch"):
        assert site.visitor().send(method, "/view").text == "firstlast"
    assert warnings(caplog) == []


def test_a_chunk_sees_the_writes_of_earlier_chunks(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        def pieces() -> Iterator[str]:
            yield shown()
            write(2)  # moved to the master
            yield f";{shown()};{Message.objects.count()}"

        return StreamingHttpResponse(pieces())

    site.serve(view=view)
    site.pair.stop_slave()
    with caplog.at_level(logging.WARNING, "replswitch"):
        assert site.visitor().get("/view").text == "1;1 2;2"
    site.assert_lagged()
    assert len(warnings(caplog)) == 2  # that it was moved, and that it was late
