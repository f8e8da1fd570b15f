"""The options ``rollout`` and ``enabled`` in ASGI: requests, streams, threads, tasks and websockets (R6)."""

from __future__ import annotations

import asyncio
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import pytest
from tests.test_asgi.conftest import Browser, respond
from tests.test_asgi.sockets import open_socket
from tests.test_asgi.test_websocket import Chat

from replswitch.decorators import use_slave

if TYPE_CHECKING:
    from tests.test_asgi.conftest import ASGIBoard, Receive, Send

ON_TWO_SERVERS = pytest.mark.parametrize("served", ["mariadb", "sqlite"], indirect=True)


class Told(Chat):
    """An application that answers each message with the server and the reason of a read in slave state."""

    def do(self, command: str) -> str:
        with use_slave():
            self.board.numbers()
            query = self.board.db.queries[-1]
            return f"{query['server']} {query['reason']}"


def server_of(told: str) -> str:
    """The server that a debug header names."""
    return told.partition("server=")[2].partition(";")[0]


@pytest.mark.parametrize("served", ["sqlite"], indirect=True)
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_r6_the_rollout_share_of_the_visitors_reads_from_slaves_and_no_visitor_changes_sides(
    board: ASGIBoard, share: float
) -> None:
    app = board.within(board.answer, rollout=share)

    async def main() -> list[bool]:
        sides = []
        for _ in range(100):
            visitor = Browser(app)
            answers = [await visitor.asend() for _ in range(2)]
            assert answers[0].told == answers[1].told, "a visitor has changed sides"
            assert [len(answer.cookies) for answer in answers] == [int(0 < share < 1), 0]
            sides.append(answers[0].told.endswith("method"))
        return sides

    assert abs(sum(asyncio.run(main())) / 100 - share) <= 0.03


@ON_TWO_SERVERS
@pytest.mark.parametrize("share", [0, 1])
def test_r6_streams_threads_and_tasks_are_on_the_side_of_their_request(board: ASGIBoard, share: float) -> None:
    board.db.debug = True
    found: dict[str, str] = {}

    def read(name: str) -> None:
        with use_slave():
            board.numbers()
            found[name] = board.db.queries[-1]["server"]

    async def task() -> None:
        read("task")

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        read("request")
        await asyncio.to_thread(read, "thread")
        await asyncio.create_task(task())
        await respond(send, b"piece", b"piece")
        read("background")

    Browser(board.within(app, rollout=share)).send()
    server = board.db.servers.slaves[0] if share else board.db.servers.master
    assert found == dict.fromkeys(["request", "thread", "task", "background"], server.name)


@ON_TWO_SERVERS
def test_s8_r6_with_rollout_0_a_write_in_slave_state_is_refused_and_its_request_runs_again(board: ASGIBoard) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        board.db.begin()
        number = len(board.numbers()) + 1
        board.write(number)
        board.db.commit()
        await respond(send, board.page())

    answer = Browser(board.within(app, rollout=0)).send()
    assert (answer.body, answer.side) == (b"1 2", "master")
    assert "reason=replay" in answer.told


@ON_TWO_SERVERS
def test_r6_a_websocket_keeps_the_side_of_its_visitor(board: ASGIBoard) -> None:
    app, socket_app = board.within(board.answer, rollout=0.5), board.within(Told(board), rollout=0.5)
    seen = set()

    async def main() -> None:
        for _ in range(6):
            visitor = Browser(app)
            async with open_socket(socket_app) as socket:
                first = await socket.ask("read")
                assert len(socket.values("set-cookie")) == 1
                visitor.keep(*socket.values("set-cookie"))
                assert await socket.ask("task read") == first, "a message has changed sides"
                assert await socket.ask("thread read") == first, "a message has changed sides"
            assert server_of((await visitor.asend()).told) == first.partition(" ")[0], "a visitor has changed sides"
            async with open_socket(socket_app, cookie=visitor.cookie) as socket:
                assert socket.values("set-cookie") == []
                assert await socket.ask("read") == first, "a visitor has changed sides"
            seen.add(first)

    asyncio.run(main())
    master, (slave, *_) = board.db.servers.master.name, board.db.servers.slaves
    assert seen == {f"{master} rollout", f"{slave.name} use_slave"}


@ON_TWO_SERVERS
def test_a_new_value_of_enabled_applies_to_the_next_message_of_an_open_websocket(board: ASGIBoard) -> None:
    asked: list[Any] = []
    is_on = [False]

    def enabled(scope: Any) -> bool:
        asked.append(scope["type"])
        return is_on[0]

    async def main() -> None:
        async with open_socket(board.within(Told(board), enabled=enabled)) as socket:
            for state in (False, True, False):
                is_on[0] = state
                await socket.ask("")
                assert (await socket.ask("")).endswith("use_slave" if state else "disabled")

    asyncio.run(main())
    assert set(asked) == {"websocket"}


@pytest.mark.parametrize("served", ["sqlite"], indirect=True)
def test_r6_the_rollout_function_gets_the_connection_scope(board: ASGIBoard) -> None:
    def rollout(scope: Any) -> bool:
        cookies: SimpleCookie = SimpleCookie(dict(scope["headers"]).get(b"cookie", b"").decode())
        return "beta" in cookies

    app = board.within(board.answer, rollout=rollout)
    visitor, beta = Browser(app), Browser(app)
    beta.jar["beta"] = "1"
    assert (visitor.send().told[-7:], beta.send().told[-6:]) == ("rollout", "method")
