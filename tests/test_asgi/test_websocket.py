"""Websockets: the handshake has a marker and gets one; each message begins like a request of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from pymysql.cursors import SSCursor
from tests.test_asgi.conftest import ASGIBoard, Browser, Message, Receive, Send, Wrap
from tests.test_asgi.sockets import REFUSAL, Socket, open_socket

from replswitch import ConfigurationError, Switch
from replswitch.connect.pool import LeasedLink
from replswitch.decorators import use_master, use_slave
from replswitch.scope import waiting
from replswitch.state import stack

ON_ONE_SERVER = pytest.mark.parametrize("served", ["sqlite"], indirect=True)
"""What no server changes."""

ACCEPT = {"type": "websocket.accept"}


class Chat:
    """An application: each message is a command.

    Attributes:
        before: what it does before it accepts.
    """

    def __init__(self, board: ASGIBoard) -> None:
        self.board = board
        self.board.db.debug = True
        self.before: Callable[[], object] = lambda: None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        self.before()
        await send({**ACCEPT, "headers": [(b"x-own", b"1")]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": await self.answer(message["text"])})

    async def answer(self, command: str) -> str:
        where, _, rest = command.partition(" ")
        if where == "task":
            return await asyncio.create_task(self.answer(rest))
        if where == "thread":
            return await asyncio.to_thread(self.do, rest)
        return self.do(command)

    def do(self, command: str) -> str:
        db, (verb, _, rest) = self.board.db, command.partition(" ")
        if verb == "write":
            self.board.write(int(rest))
        elif verb in {"begin", "commit"}:
            getattr(db, verb)()
        elif verb == "stream":
            with use_master(), db.cursor(SSCursor) as cursor:
                cursor.execute("SELECT n FROM wsgi_message")
                cursor.fetchall()
        elif verb == "state":
            return db.state
        elif verb == "read":
            with use_slave():
                self.board.numbers()  # the second read has the same server
                return f"{self.board.page().decode()} {db.queries[-1]['db']}"
        return "done"


def lent(board: ASGIBoard) -> int:
    """How many connections to the servers are in use."""
    gc.collect()
    servers = (board.db.servers.master, *board.db.servers.slaves)
    return sum(type(each) is LeasedLink and each.server in servers for each in gc.get_objects())


@pytest.fixture
def chat(board: ASGIBoard) -> Chat:
    return Chat(board)


def test_s1_a_websocket_is_in_master_state(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        async with open_socket(board.within(chat)) as socket:
            assert socket.values("replswitch") == ["master; reason=method"]
            assert await socket.ask("state") == "master"
            assert await socket.ask("read") == "1 slave"
            assert (socket.values("x-own"), socket.values("set-cookie")) == (["1"], [])

    asyncio.run(main())


@ON_ONE_SERVER
def test_r1_override_gets_the_scope_of_a_websocket_and_chooses_its_state(board: ASGIBoard, chat: Chat) -> None:
    def override(scope: Any) -> str | None:
        return "slave" if scope["type"] == "websocket" and scope["path"] == "/feed" else None

    async def main() -> None:
        app = board.within(chat, override=override)
        for path, state in (("/feed", "slave"), ("/", "master")):
            async with open_socket(app, path=path) as socket:
                for _ in range(2):
                    assert await socket.ask("state") == state

    asyncio.run(main())


def test_an_override_that_returns_no_state_is_an_error_and_leaves_no_state(wrap: Wrap) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None: ...

    with pytest.raises(ConfigurationError, match="override"):
        asyncio.run(Socket(wrap(app, override=lambda scope: "replica")).run())
    assert stack() is None


def test_m1_the_marker_of_the_handshake_counts_in_every_message(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        visitor = Browser(board.app)
        board.pair.stop_slave()
        await visitor.asend("POST", "n=2&status=201")
        app = board.within(chat)
        async with open_socket(app, cookie=visitor.cookie) as socket, open_socket(app) as other:
            for _ in range(2):
                assert await socket.ask("read") == "1 2 master"
            assert await other.ask("read") == "1 slave", "the marker reached another visitor"
            board.pair.start_slave()
            board.pair.wait_caught_up()
            assert await socket.ask("read") == "1 2 slave", "the master serves the socket for ever"

    asyncio.run(main())


def test_m1_a_websocket_sees_what_was_written_in_it(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        async with open_socket(board.within(chat)) as socket:
            assert await socket.ask("read") == "1 slave"
            board.pair.stop_slave()
            await socket.ask("write 2")
            assert await socket.ask("read") == "1 2 master"
            await socket.ask("task write 3")
            assert await socket.ask("task read") == "1 2 3 master"
            await socket.ask("thread write 4")
            assert await socket.ask("thread read") == "1 2 3 4 master"
            board.pair.start_slave()
            board.pair.wait_caught_up()
            assert await socket.ask("read") == "1 2 3 4 slave", "the master serves the socket for ever"
            assert socket.values("set-cookie") == []

    asyncio.run(main())


def test_m1_a_write_before_accept_marks_the_handshake(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        visitor = Browser(board.app)
        chat.before = lambda: board.write(2)
        board.pair.stop_slave()
        async with open_socket(board.within(chat)) as socket:
            (cookie,) = socket.values("set-cookie")
            assert socket.values("x-own") == ["1"]
            visitor.keep(cookie)
            assert (await visitor.asend()).body == b"1 2"
            assert await socket.ask("read") == "1 2 master"

    asyncio.run(main())


REFUSALS: dict[str, list[Message]] = {
    "with a response": [
        {"type": "websocket.http.response.start", "status": 403, "headers": [(b"x-own", b"1")]},
        {"type": "websocket.http.response.body", "body": b"no"},
    ],
    "by closing": [{"type": "websocket.close"}],
    "by an error": [],
}


@ON_ONE_SERVER
@pytest.mark.parametrize("how", REFUSALS)
@pytest.mark.parametrize(
    "extensions", [REFUSAL, {}, None], ids=["server can respond", "server cannot respond", "no extensions"]
)
@pytest.mark.parametrize("writes", [True, False])
def test_m1_a_write_before_a_websocket_is_refused_marks_the_refusal(
    board: ASGIBoard, how: str, extensions: Any, writes: bool
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        if writes:
            board.write(2)
        for message in REFUSALS[how]:
            await send(message)
        if how == "by an error":
            raise LookupError

    async def main() -> Socket:
        socket = Socket(board.within(app, debug_header=False), extensions=extensions)
        with suppress(LookupError):
            await socket.run()
        return socket

    socket = asyncio.run(main())
    kinds = [each["type"] for each in socket.sent]
    is_marked = writes and (extensions is REFUSAL or how == "with a response")
    assert len(socket.values("set-cookie")) == is_marked if kinds else not is_marked
    if is_marked and how != "with a response":
        assert socket.sent[0]["status"] == (403 if how == "by closing" else 500)
        assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]
    else:
        assert kinds == [each["type"] for each in REFUSALS[how]]


@ON_ONE_SERVER
def test_m6_the_cookie_is_secure_on_wss(board: ASGIBoard, chat: Chat) -> None:
    chat.before = lambda: board.write(2)

    async def main() -> list[str]:
        async with open_socket(board.within(chat), scheme="wss") as socket:
            return socket.values("set-cookie")

    assert "; Secure" in asyncio.run(main())[0]


@ON_ONE_SERVER
def test_m7_a_write_in_an_open_websocket_is_not_logged_as_too_late_for_a_marker(
    board: ASGIBoard, chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with open_socket(board.within(chat)) as socket:
            await socket.ask("write 2")

    caplog.set_level(logging.WARNING)
    asyncio.run(main())
    assert caplog.messages == []


def test_r4_a_marker_by_time_ends_while_the_websocket_is_open(wrap: Wrap, token: Callable[..., str]) -> None:
    switch = Switch()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": switch.state})

    async def main() -> list[str]:
        wrapped = wrap(app, override=lambda scope: "slave", cookie_max_age=0.3)
        async with open_socket(wrapped, cookie=f"just_updated={token()}") as socket:
            first = await socket.ask("")
            await asyncio.sleep(0.4)
            return [first, await socket.ask("")]

    assert asyncio.run(main()) == ["master", "slave"]


@ON_ONE_SERVER
def test_enabled_false_keeps_the_websocket_on_the_master(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        async with open_socket(board.within(chat, enabled=False, override=lambda scope: "slave")) as socket:
            for _ in range(2):
                assert await socket.ask("read") == "1 master"

    asyncio.run(main())


@ON_ONE_SERVER
@pytest.mark.parametrize("where", ["", "task ", "thread "], ids=["in the websocket itself", "in a task", "in a thread"])
def test_an_open_websocket_holds_no_connection_while_it_waits(board: ASGIBoard, chat: Chat, where: str) -> None:
    async def main() -> None:
        async with open_socket(board.within(chat)) as socket:
            for number in (2, 3):
                assert await socket.ask(f"{where}write {number}") == "done"
                await socket.ask(f"{where}read")
                await asyncio.sleep(0)
                assert lent(board) == 0

    asyncio.run(main())


@pytest.mark.parametrize("served", ["mariadb"], indirect=True)
def test_an_open_websocket_holds_no_connection_after_rows_were_read_one_by_one(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        async with open_socket(board.within(chat)) as socket:
            for _ in range(3):
                await socket.ask("stream")
                await asyncio.sleep(0)
                assert lent(board) == 0

    asyncio.run(main())


@ON_ONE_SERVER
def test_a_task_of_an_open_websocket_gives_its_connections_back_when_it_is_done(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        tasks: list[asyncio.Task[str]] = []

        async def answer(command: str) -> str:
            await asyncio.sleep(0)
            return await Chat.answer(chat, command)

        def start(command: str) -> Awaitable[str]:
            tasks.append(asyncio.create_task(answer(command)))
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            done.set_result("started")
            return done

        chat.answer = start  # type: ignore[assignment, method-assign]
        async with open_socket(board.within(chat)) as socket:
            await socket.ask("write 2")
            assert await tasks.pop() == "done"
            await asyncio.sleep(0)
            assert lent(board) == 0

    asyncio.run(main())


@ON_ONE_SERVER
def test_s5_a_transaction_may_last_for_several_messages(board: ASGIBoard, chat: Chat) -> None:
    async def main() -> None:
        async with open_socket(board.within(chat)) as socket:
            for command in ("begin", "write 2", "write 3"):
                await socket.ask(command)
            assert board.on("master") == [1]
            await socket.ask("commit")
            assert board.on("master") == [1, 2, 3]

    asyncio.run(main())


def test_s3_each_of_several_websockets_has_its_own_state(wrap: Wrap) -> None:
    switch = Switch()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while (message := await receive())["type"] == "websocket.receive":
            before = switch.state
            switch.use_slave() if message["text"] == "slave" else use_master().__enter__()
            await send({"type": "websocket.send", "text": before})

    async def main() -> None:
        wrapped = wrap(app)
        async with open_socket(wrapped) as one, open_socket(wrapped) as two:
            answers = [await one.ask("slave"), await two.ask("slave"), await one.ask("master"), await one.ask("")]
            assert answers == ["master", "master", "slave", "master"]
        assert stack() is None

    asyncio.run(main())


def test_s9_a_disconnect_cleans_up_in_the_state_of_the_websocket(wrap: Wrap) -> None:
    switch = Switch()
    seen: list[str] = []
    scopes: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        frame = stack()
        assert frame is not None
        scopes.append(frame.scope)
        try:
            await receive()
            await send(ACCEPT)
            await receive()
            await asyncio.Event().wait()
        finally:
            seen.append(switch.state)

    async def main() -> None:
        socket = Socket(wrap(app, override=lambda scope: "slave"))
        task = asyncio.create_task(socket.run())
        await socket.answer()
        socket.close()
        await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (seen, [scope.ended for scope in scopes]) == (["slave"], [True])


def test_m1_an_open_websocket_is_not_among_the_requests_that_outside_commits_are_recorded_for(wrap: Wrap) -> None:
    """Thousands of sockets may be open, and each write outside any request looks at all that wait."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()

    async def main() -> None:
        async with open_socket(wrap(app)):
            assert waiting() == []

    asyncio.run(main())
