"""The options ROLLOUT and ENABLED in Django (R6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client, override_settings
from tests.test_asgi.sockets import open_socket
from tests.test_django.requests.board import Site, Visitor, answer, board, shown, write
from tests.test_django.requests.test_channels import Asynchronous

from django_replswitch.asgi import WebsocketMiddleware
from django_replswitch.decorators import use_slave
from replswitch import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.test_django.requests.conftest import Visitors


def reason(told: str) -> str:
    """The reason in a debug header with one decision."""
    assert "," not in told
    return told.rpartition("=")[2]


@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_r6_the_rollout_share_of_the_visitors_reads_from_slaves(site: Site, share: float) -> None:
    site.options(ROLLOUT=share)
    number = 0
    for _ in range(50):
        visitor = site.visitor()
        first, second = visitor.get(), visitor.get()
        assert first.told == second.told, "a visitor has changed sides"
        assert set(visitor.jar) == ({"just_updated_rollout"} if 0 < share < 1 else set())
        number += reason(first.told) == "method"
    assert abs(number / 50 - share) <= 0.03


def test_r6_with_rollout_0_visitors_read_the_master_and_moved_writes_are_found(
    site: Site, new_visitor: Visitors
) -> None:
    def visit(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            write(len(shown().split()) + 1)
        return answer(shown())

    def stream(request: HttpRequest) -> StreamingHttpResponse:
        def pieces() -> Iterator[str]:
            yield shown()
            yield f" {shown()}"

        return StreamingHttpResponse(pieces())

    site.options(ROLLOUT=0)
    site.serve(visit=visit, stream=stream, decorated=use_slave(board))
    site.pair.stop_slave()
    visitor = new_visitor()
    assert visitor.post("/?n=2").side == "master"
    for path in ("/", "/decorated"):
        assert visitor.get(path).text == "1 2"
    assert site.visitor().get("/stream").text == "1 2 1 2"
    assert reason(visitor.get().told) == "rollout"
    page = visitor.get("/visit")
    assert page.text == "1 2 3"
    assert "reason=replay" in page.told or "reason=learned" in page.told
    site.assert_lagged()


@pytest.mark.parametrize("share", [0, 0.5])
def test_r3_r6_a_decorated_view_without_the_middleware_follows_the_rollout(site: Site, share: float) -> None:
    site.change(MIDDLEWARE=[])
    site.options(ROLLOUT=share)
    site.serve(root=use_slave(board))
    told = set()
    for _ in range(6):
        visitor = site.visitor()
        first, second = visitor.get(), visitor.get()
        assert first.told == second.told, "a visitor has changed sides"
        told.add(reason(first.told))
    assert told == ({"rollout", "override"} if share else {"rollout"})


def test_new_values_of_enabled_and_rollout_apply_while_the_project_runs(site: Site, new_visitor: Visitors) -> None:
    now: dict[str, Any] = {"on": True, "share": 0}
    site.options(ENABLED=lambda request: now["on"] and request.method == "GET", ROLLOUT=lambda: now["share"])
    visitor = new_visitor()
    assert reason(visitor.get().told) == "rollout"
    now["share"] = 1
    assert reason(visitor.get().told) == "method"
    now["on"] = False
    assert reason(visitor.get().told) == "disabled"
    with override_settings(REPLSWITCH={"DEBUG_HEADER": True}):
        assert reason(visitor.get().told) == "method"
    assert reason(visitor.get().told) == "disabled"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ROLLOUT": 10}, '"rollout" is 10. It must be a number from 0 to 1'),
        ({"ENABLED": "yes"}, "\"enabled\" is 'yes'. It must be True or False, or a function"),
    ],
)
def test_wrong_options_are_refused(site: Site, options: dict[str, Any], told: str) -> None:
    site.options(**options)
    with pytest.raises(ImproperlyConfigured) as raised:
        Client().get("/")
    assert told in str(raised.value)


def test_a_function_that_returns_no_share_is_an_error(site: Site) -> None:
    site.options(ROLLOUT=lambda request: "some")
    with pytest.raises(ConfigurationError, match=r"\"rollout\" returned 'some'\. It must return a number from 0 to 1"):
        Client().get("/")


def in_a_socket(cookie: str, work: Callable[[Any], Any]) -> Any:
    """Open a websocket of Channels, and return what a coroutine function returns for it."""
    found = []

    async def main() -> None:
        async with open_socket(WebsocketMiddleware(Asynchronous.as_asgi()), cookie=cookie or None) as socket:
            found.append(await work(socket))

    async_to_sync(main)()
    return found[0]


def test_r6_a_websocket_of_channels_keeps_the_side_of_its_visitor(site: Site) -> None:
    async def read(socket: Any) -> tuple[list[str], str]:
        return socket.values("set-cookie"), await socket.ask("read")

    site.options(ROLLOUT=0.5)
    site.pair.stop_slave()
    write(2)
    texts = set()
    for _ in range(6):
        visitor = Visitor(site.visitor().door)
        page = visitor.get()
        cookies, text = in_a_socket(visitor.cookie, read)
        assert (cookies, text) == ([], page.text), "a visitor has changed sides"
        texts.add(text)
    assert texts == {"1", "1 2"}
    cookies, _ = in_a_socket("", read)
    assert [each.partition("=")[0] for each in cookies] == ["just_updated_rollout"]


def test_r6_the_functions_get_an_http_request_in_a_websocket_of_channels(site: Site) -> None:
    async def read(socket: Any) -> str:
        return str(await socket.ask("read"))

    def is_beta(request: HttpRequest) -> bool:
        return "beta" in request.COOKIES and request.path == "/"

    site.options(ROLLOUT=is_beta, ENABLED=lambda request: request.method == "GET")
    site.pair.stop_slave()
    write(2)
    assert in_a_socket("beta=1", read) == "1"
    assert in_a_socket("", read) == "1 2"
