"""Streamed responses: the state holds while a piece is produced and while the rest is closed, never between (S9)."""

from __future__ import annotations

import asyncio
import functools
import gc
import gzip
import io
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from tests.test_django.project.models import Message
from tests.test_django.requests.asgi import Exchange
from tests.test_django.requests.board import MIDDLEWARE, Site, Visitor, connection, shown, through_wsgi, write

from django_replswitch.decorators import use_master
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.test_django.requests.board import Page

SIDES = pytest.mark.parametrize(("method", "side"), [("GET", "slave"), ("POST", "master")])
INNER = pytest.mark.parametrize("inner", ["", "sync_only"], ids=["no other middleware", "sync middleware inside"])


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
def test_s9_a_response_closed_early_is_closed_in_the_state_of_the_request(site: Site, method: str, side: str) -> None:
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
def test_s9_a_disconnect_under_wsgi_closes_the_response_in_the_state_of_the_request(
    site: Site, method: str, side: str
) -> None:
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
        for turn in range(500):
            await asyncio.sleep(0.01)
            if turn > 4 and len(asyncio.all_tasks()) == 1:  # the others close generators
                break
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
@INNER
def test_s9_a_disconnect_closes_async_chunks_in_the_state_of_the_request(
    site: Site, method: str, side: str, inner: str
) -> None:
    view = StreamedAsync()
    site.change(MIDDLEWARE=[MIDDLEWARE, *([f"{__name__}.{inner}"] if inner else [])])
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


def stream_of(kind: str, work: Callable[[], object], **more: Any) -> Callable[[HttpRequest], Any]:
    """A view whose stream works before its first piece; an empty piece comes before."""

    def pieces() -> Iterator[str]:
        yield ""
        yield str(work())
        yield "last"

    async def async_pieces() -> AsyncIterator[str]:
        yield ""
        yield str(await sync_to_async(work)())
        yield "last"

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(pieces() if kind == "sync" else async_pieces(), **more)

    return view


def written() -> str:
    write(2)
    return shown()


def through_asgi(method: str, path: str, headers: dict[str, str]) -> Page:
    """Through Django's ASGI application, which sends the headers before it asks for the first piece."""
    return async_to_sync(Exchange(method, path, headers).run)(get_asgi_application())


ignore_other_kind = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")


@ignore_other_kind
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("door", [through_wsgi, through_asgi])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("decorated", [False, True])
def test_m7_a_write_before_the_first_piece_of_a_stream_is_marked(
    site: Site, kind: str, door: Any, method: str, decorated: bool
) -> None:
    view = stream_of(kind, written)
    if decorated:
        site.change(MIDDLEWARE=[])
        view = use_master(view)
    site.serve(view=view)
    site.pair.stop_slave()
    visitor = Visitor(door)
    page = visitor.send(method, "/view")
    assert (page.text, len(page.markers)) == ("1 2last", 1)
    assert int(page.markers[0]["max-age"]) > 60, "the position was not known"
    assert Visitor(door).get("/view" if decorated else "/").text[:1] == "1"
    if not decorated:
        assert visitor.get().text == "1 2"
    site.assert_lagged()


@ignore_other_kind
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("door", [through_wsgi, through_asgi])
def test_m7_a_write_before_the_first_piece_of_a_compressed_stream_is_marked(site: Site, kind: str, door: Any) -> None:
    """Django's GZipMiddleware sends a header before it asks for a piece, and compresses empty pieces, too."""
    site.change(MIDDLEWARE=[MIDDLEWARE, "django.middleware.gzip.GZipMiddleware"])
    site.serve(view=stream_of(kind, written))
    site.pair.stop_slave()
    visitor = Visitor(door)
    page = visitor.post("/view", Accept_Encoding="gzip")
    assert (page.text, len(page.markers)) == ("1 2last", 1)
    assert page.headers["content-encoding"] == "gzip"
    assert visitor.get().text == "1 2"
    site.assert_lagged()


def test_m7_a_compressed_stream_of_events_under_wsgi_begins_with_the_header_of_gzip(site: Site) -> None:
    """It may be endless, and its compressor may hold small events back."""
    begun: list[str] = []

    def events() -> Iterator[str]:
        begun.append("begun")
        yield "data: 1"

    site.change(MIDDLEWARE=[MIDDLEWARE, "django.middleware.gzip.GZipMiddleware"])
    site.serve(view=lambda request: StreamingHttpResponse(events(), content_type="text/event-stream"))
    response: Any = Client().get("/view", headers={"Accept-Encoding": "gzip"})
    assert begun == []
    assert gzip.decompress(b"".join(response.streaming_content)) == b"data: 1"


@ignore_other_kind
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("door", [through_wsgi, through_asgi])
def test_m1_an_error_after_a_write_before_the_first_piece_is_marked(site: Site, kind: str, door: Any) -> None:
    def fail() -> None:
        write(2)
        raise LookupError("no first piece")

    closed: list[str] = []
    view = stream_of(kind, fail)

    def with_closer(request: HttpRequest) -> Any:
        response = view(request)
        response._resource_closers.append(lambda: closed.append(connection.state))
        return response

    site.serve(view=with_closer)
    site.pair.stop_slave()
    visitor = Visitor(functools.partial(door, raising=False) if door is through_wsgi else door)
    page = visitor.post("/view")
    assert (page.status, len(page.markers)) == (500, 1)
    assert visitor.get().text == "1 2"
    assert closed == ["master"]
    assert stack() is None


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("door", [through_wsgi, through_asgi])
@INNER
@ignore_other_kind
def test_r5_a_stream_that_cannot_move_its_write_before_the_first_piece_runs_again(
    site: Site, kind: str, door: Any, inner: str
) -> None:
    site.change(MIDDLEWARE=[MIDDLEWARE, *([f"{__name__}.{inner}"] if inner else [])])

    def read_and_write() -> str:
        with transaction.atomic():
            before = shown()
            write(2)
            return f"{before};{shown()}"

    closed: list[str] = []
    view = stream_of(kind, read_and_write)

    def with_closer(request: HttpRequest) -> Any:
        response = view(request)
        response._resource_closers.append(lambda: closed.append(f"{connection.state} {shown()}"))
        return response

    site.serve(view=with_closer)
    site.pair.stop_slave()
    visitor = Visitor(door)
    page = visitor.get("/view")
    assert (page.status, page.text, len(page.markers)) == (200, "1;1 2last", 1)
    assert closed == ["slave 1", "master 1 2"], "the response of the first try was not closed by its own functions"
    assert visitor.get().text == "1 2"
    assert site.on("master") == "1 2"


def test_m7_the_headers_of_a_stream_of_events_are_sent_before_its_first_event(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The client needs them. A write before the first event is late, and logged."""
    site.serve(view=stream_of("async", lambda: Message.objects.update(body="2"), content_type="text/event-stream"))
    with caplog.at_level(logging.WARNING, "replswitch"):
        page = through_asgi("POST", "/view", {})
    assert (page.text, page.markers) == ("1last", [])
    (message,) = warnings(caplog)
    assert "A write was committed after the response's headers were sent" in message


def sync_only(get_response: Any) -> Callable[[HttpRequest], Any]:
    """Return a middleware that makes Django run the ones before it synchronously, under ASGI too."""

    def middleware(request: HttpRequest) -> Any:
        return get_response(request)

    return middleware


@pytest.fixture(params=["middleware", "decorator"])
def serve_synchronously(request: pytest.FixtureRequest, site: Site) -> Callable[[Any], None]:
    """Serve a view; what begins its stream under ASGI runs synchronously."""

    def serve(view: Any) -> None:
        if request.param == "middleware":
            site.change(MIDDLEWARE=[MIDDLEWARE, f"{__name__}.sync_only"])
            site.serve(view=view)
        else:
            site.change(MIDDLEWARE=[])
            site.serve(view=use_master(view))

    return serve


@dataclass
class Watching(Exchange):
    """A client that tells the view of what it has received."""

    begun: threading.Event = field(default_factory=threading.Event)
    first: threading.Event = field(default_factory=threading.Event)

    async def _send(self, message: dict[str, Any]) -> None:
        await super()._send(message)
        self.begun.set()
        if self.pieces:
            self.first.set()

    @staticmethod
    async def has(event: threading.Event) -> bool:
        return await asyncio.to_thread(event.wait, 30)


def test_m7_an_async_stream_is_not_read_to_its_end_by_synchronous_middleware_under_asgi(
    site: Site, serve_synchronously: Callable[[Any], None]
) -> None:
    client = Watching("POST", "/view")

    async def pieces() -> AsyncIterator[str]:
        await sync_to_async(write)(2)
        yield "first "
        yield str(await client.has(client.first))

    serve_synchronously(lambda request: StreamingHttpResponse(pieces()))
    page = async_to_sync(client.run)(get_asgi_application())
    assert page.text == "first True", "the client has received the first piece together with the last one"
    assert len(page.markers) == 1, "the first piece was not produced before the headers"
    assert stack() is None


class Leaving(Exchange):
    """A client that disconnects as soon as the view waits."""

    waits: asyncio.Event

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self.waits = asyncio.Event()
            return await super()._receive()
        await self.waits.wait()
        return {"type": "http.disconnect"}


@INNER
def test_s9_a_disconnect_before_the_first_piece_cancels_and_closes_an_async_stream(site: Site, inner: str) -> None:
    """Otherwise the thread of the synchronous middleware would wait for a piece that is not sent any more."""
    client = Leaving("GET", "/view")
    ends: list[str] = []

    async def pieces() -> AsyncIterator[str]:
        client.waits.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append(f"cancelled: {connection.state}")
            raise
        yield "late"

    def view(request: HttpRequest) -> Any:
        response: Any = StreamingHttpResponse(pieces())
        response._resource_closers.append(lambda: ends.append(f"closed: {connection.state} {shown()}"))
        return response

    site.change(MIDDLEWARE=[MIDDLEWARE, *([f"{__name__}.{inner}"] if inner else [])])
    site.serve(view=view)
    async_to_sync(client.run)(get_asgi_application())
    assert ends == ["cancelled: slave", "closed: slave 1"]
    assert stack() is None


@ignore_other_kind
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_m7_the_headers_of_a_stream_of_events_do_not_wait_for_synchronous_middleware_under_asgi(
    site: Site, serve_synchronously: Callable[[Any], None], kind: str
) -> None:
    client = Watching("GET", "/view")

    def events() -> Iterator[str]:
        yield str(client.begun.wait(30))

    async def async_events() -> AsyncIterator[str]:
        yield str(await client.has(client.begun))

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(events() if kind == "sync" else async_events(), content_type="text/event-stream")

    serve_synchronously(view)
    assert async_to_sync(client.run)(get_asgi_application()).text == "True"
    assert stack() is None


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
