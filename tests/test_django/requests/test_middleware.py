"""The middleware, sync and async, with views of both kinds, errors, and other middleware inside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.utils.decorators import sync_only_middleware
from django.views import View
from tests.test_django.project.models import Message
from tests.test_django.requests.asgi import Exchange
from tests.test_django.requests.board import (
    MIDDLEWARE,
    answer,
    connection,
    connections,
    shown,
    through_asgi,
    through_wsgi,
    write,
)

from django_replswitch.decorators import use_master
from django_replswitch.middleware import ReplicationMiddleware
from replswitch.state import stack

if TYPE_CHECKING:
    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors


def sync_view(request: HttpRequest) -> HttpResponse:
    return answer(f"{connection.state} {shown()}")


async def async_view(request: HttpRequest) -> HttpResponse:
    state = connection.state
    found = [body async for body in Message.objects.order_by("id").values_list("body", flat=True)]
    assert await sync_to_async(shown)() == " ".join(found)
    return answer(f"{state} {' '.join(found)}")


async def view_with_tasks(request: HttpRequest) -> HttpResponse:
    async def one() -> str:
        return f"{connection.state} {await sync_to_async(shown)()}"

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(5)]
    (text,) = {task.result() for task in tasks}
    return answer(text)


async def view_with_threads(request: HttpRequest) -> HttpResponse:
    def one() -> str:
        try:
            return f"{connection.state} {shown()}"
        finally:
            connection.close()

    (text,) = set(await asyncio.gather(*(sync_to_async(one, thread_sensitive=False)() for _ in range(3))))
    return answer(text)


class AsyncClass(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await async_view(request)

    post = get


VIEWS = [sync_view, async_view, view_with_tasks, view_with_threads, AsyncClass.as_view()]


def test_sync_and_async_views_have_their_state_under_wsgi_and_asgi(site: Site, new_visitor: Visitors) -> None:
    site.serve(**{f"view{number}": view for number, view in enumerate(VIEWS)})
    site.pair.stop_slave()
    write(2)
    for number in range(len(VIEWS)):
        get, post = new_visitor().get(f"/view{number}"), new_visitor().post(f"/view{number}")
        assert (get.text, get.side) == ("slave 1", "slave")
        assert (post.text, post.side) == ("master 1 2", "master")
    site.assert_lagged()


def test_the_middleware_is_sync_or_async_as_its_server(rf: RequestFactory) -> None:
    async def get_response(request: HttpRequest) -> HttpResponse:
        return answer(connection.state)

    middleware = ReplicationMiddleware(get_response)
    assert iscoroutinefunction(middleware)
    assert async_to_sync(middleware)(rf.get("/")).content == b"slave"
    assert not iscoroutinefunction(ReplicationMiddleware(lambda request: answer(connection.state)))


@pytest.fixture
def rf() -> RequestFactory:
    return RequestFactory()


@sync_only_middleware
def other_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Reads before and after the view; Django runs it in a thread where the server is asynchronous."""

    def middleware(request: HttpRequest) -> HttpResponse:
        before = shown()
        response = get_response(request)
        response.headers["Seen"] = f"{before};{shown()};{connection.state}"
        return response

    return middleware


def test_inner_middleware_has_the_state_of_the_request(site: Site, new_visitor: Visitors) -> None:
    site.change(MIDDLEWARE=[MIDDLEWARE, f"{__name__}.other_middleware"])
    site.serve(sync=sync_view, **{"async": async_view})
    site.pair.stop_slave()
    write(2)
    for path in ("/sync", "/async"):
        get, post = new_visitor().get(path), new_visitor().post(path)
        assert (get.text, get.headers["seen"]) == ("slave 1", "1;1;slave")
        assert (post.text, post.headers["seen"]) == ("master 1 2", "1 2;1 2;master")
    site.assert_lagged()


class UnforeseenError(Exception):
    pass


ERRORS = {
    Http404("gone"): 404,
    PermissionDenied("no"): 403,
    SuspiciousOperation("odd"): 400,
    UnforeseenError("oops"): 500,
}


@pytest.mark.parametrize("door", [through_wsgi, through_asgi])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_s3_an_error_of_a_view_leaves_no_state(site: Site, door: Any, error: Exception) -> None:
    def failing(request: HttpRequest) -> HttpResponse:
        connection.use_slave()
        connections["other"].use_master()
        raise error

    async def failing_async(request: HttpRequest) -> HttpResponse:
        connection.use_slave()
        await sync_to_async(connections["other"].use_master)()
        raise error

    site.serve(failing=failing, failing_async=failing_async, view=sync_view)
    for path in ("/failing", "/failing_async"):
        page = door("POST", path, {}, raising=False)  # looks for a state left behind
        assert (page.status, page.told) == (ERRORS[error], "master; reason=method")
        assert door("GET", "/view", {}).text == "slave 1"
        assert door("POST", "/view", {}).text == "master 1"
        assert connection.state == "master"
    if isinstance(error, UnforeseenError):
        with pytest.raises(UnforeseenError):
            door("POST", "/failing", {})
    assert stack() is None


def test_a_write_before_an_error_makes_a_marker(site: Site) -> None:
    site.pair.stop_slave()
    for error, status in ERRORS.items():

        def failing(request: HttpRequest, error: Exception = error, status: int = status) -> HttpResponse:
            write(status)
            raise error

        site.serve(failing=failing)
        page = through_wsgi("POST", "/failing", {}, raising=False)
        assert (page.status, len(page.markers)) == (status, 1)
        visitor = site.visitor()
        visitor.keep(page)
        assert visitor.get().text.endswith(str(status))
        site.assert_lagged(status)


def test_an_unknown_path_is_404_in_slave_state(site: Site, new_visitor: Visitors) -> None:
    page = new_visitor().get("/nowhere")
    assert (page.status, page.told, page.markers) == (404, "slave; reason=method", [])


def test_s3_a_keyboard_interrupt_in_a_view_leaves_no_state(site: Site) -> None:
    def interrupted(request: HttpRequest) -> HttpResponse:
        connection.use_slave()
        raise KeyboardInterrupt

    site.serve(interrupted=interrupted)
    with pytest.raises(KeyboardInterrupt):
        Client().get("/interrupted")
    assert stack() is None


def test_a_cancelled_async_request_leaves_no_state(site: Site) -> None:
    states = []

    begun = threading.Event()

    async def slow(request: HttpRequest) -> HttpResponse:
        connection.use_master()
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            states.append(connection.state)
        return answer("never")

    site.serve(slow=slow)

    async def main() -> None:
        task = asyncio.create_task(AsyncClient().get("/slow"))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stack() is None

    async_to_sync(main)()
    assert states == ["master"]
    assert site.visitor().get().side == "slave"


def test_s3_interleaved_async_requests_keep_their_own_states(site: Site) -> None:
    """Each waits in its view until all have begun."""
    entered: list[str] = []

    async def wait_for_all(request: HttpRequest) -> HttpResponse:
        entered.append(connection.state)
        while len(entered) < 10:
            await asyncio.sleep(0.001)
        return answer(f"{connection.state} {await sync_to_async(shown)()}")

    site.serve(view=wait_for_all)
    site.pair.stop_slave()
    write(2)
    application = get_asgi_application()

    async def main() -> list[str]:
        exchanges = [Exchange(method, "/view").run(application) for method in ("GET", "POST") * 5]
        return [page.text for page in await asyncio.gather(*exchanges)]

    assert async_to_sync(main)() == ["slave 1", "master 1 2"] * 5
    site.assert_lagged()


def test_s3_a_thread_of_a_view_begins_without_a_state(site: Site) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        states = []
        thread = threading.Thread(target=lambda: states.append(connection.state))
        thread.start()
        thread.join()
        return answer([connection.state, *states])

    site.serve(view=view)
    assert site.visitor().get("/view").text == "['slave', 'master']"


# ATOMIC_REQUESTS


@pytest.fixture
def atomic_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    connection.close()
    return site


def in_transaction(request: HttpRequest) -> HttpResponse:
    return answer(f"{connection.in_atomic_block} {connection.state} {shown()}")


def test_a_get_under_atomic_requests_opens_no_link_to_the_master(atomic_site: Site, new_visitor: Visitors) -> None:
    atomic_site.serve(view=in_transaction)
    atomic_site.pair.stop_slave()
    write(2)
    connection.close()
    with atomic_site.pair.statements("master") as master:
        page = new_visitor().get("/view")
    assert (page.text, page.side, page.markers) == ("True slave 1", "slave", [])
    assert master == []
    assert atomic_site.has_no_links("master")
    atomic_site.assert_lagged()


def test_a_get_after_a_post_under_atomic_requests_sees_the_write(atomic_site: Site, new_visitor: Visitors) -> None:
    atomic_site.pair.stop_slave()
    visitor = new_visitor()
    page = visitor.post("/?n=2")
    assert (page.side, len(page.markers)) == ("master", 1)
    assert visitor.get().text == "1 2"
    atomic_site.assert_lagged()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_view_under_atomic_requests_that_raises_writes_no_row_and_makes_no_marker(
    atomic_site: Site, method: str
) -> None:
    @use_master
    def failing(request: HttpRequest) -> HttpResponse:
        write(2)
        with transaction.atomic():
            write(3)
        raise UnforeseenError

    atomic_site.serve(failing=failing)
    for door in (through_wsgi, through_asgi):
        page = door(method, "/failing", {}, raising=False)
        assert (page.status, page.markers) == (500, [])
    assert atomic_site.on("master") == "1"


def test_s8_a_get_under_atomic_requests_that_writes_first_moves_to_the_master(
    atomic_site: Site, new_visitor: Visitors
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        write(2)
        return answer(shown())

    atomic_site.serve(view=view)
    atomic_site.pair.stop_slave()
    visitor = new_visitor()
    page = visitor.get("/view")
    assert (page.text, len(page.markers)) == ("1 2", 1)
    assert visitor.get().text == "1 2"
    atomic_site.assert_lagged()
