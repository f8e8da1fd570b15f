"""The state holds in the application and in its tasks and threads, and never while the server works (S3, S9).

`Exchange` in conftest.py looks at the stack whenever the application calls the server.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.test_asgi.conftest import App, Browser, Exchange, Receive, Send, Wrap, http_scope, respond

from replswitch import RevertError, Switch
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack

STATES = [("GET", "slave"), ("HEAD", "slave"), ("POST", "master"), ("PROPFIND", "master")]


def showing(switch: Switch) -> App:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await respond(send, switch.state.encode())

    return app


@pytest.mark.parametrize(("method", "state"), STATES)
def test_s9_the_state_holds_in_every_piece_and_not_while_the_server_works(wrap: Wrap, method: str, state: str) -> None:
    switch = Switch()
    seen: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(switch.state)
        assert (await receive())["body"] == b"sent"
        seen.append(switch.state)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in (b"", b"one", b"two"):
            seen.append(switch.state)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        seen.append(switch.state)
        await send({"type": "http.response.body"})
        seen.append(switch.state)  # as in a background task
        assert (await receive())["type"] == "http.disconnect"
        seen.append(switch.state)

    answer = Browser(wrap(app)).send(method, body=b"sent")
    assert seen == [state] * 8
    assert (answer.body, answer.side) == (b"onetwo", state)


def test_s9_the_state_of_the_server_is_back_after_the_request(wrap: Wrap) -> None:
    switch = Switch()
    with switch.use_slave(), use_slave():
        assert Browser(wrap(showing(switch))).send("POST").body == b"master"
        assert switch.state == "slave"


@pytest.mark.parametrize("how", ["a task", "a group of tasks", "a thread", "a thread of an executor"])
@pytest.mark.parametrize(("method", "state"), [("GET", "slave"), ("POST", "master")])
def test_s3_tasks_and_threads_have_the_state_and_change_nothing_outside(
    wrap: Wrap, how: str, method: str, state: str
) -> None:
    switch = Switch()

    def work() -> str:
        found = switch.state
        switch.use_slave() if found == "master" else switch.use_master()
        return found

    async def later() -> str:
        await asyncio.sleep(0)
        return work()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if how == "a task":
            found = await asyncio.create_task(later())
        elif how == "a group of tasks":
            async with asyncio.TaskGroup() as group:
                task = group.create_task(later())
            found = task.result()
        elif how == "a thread":
            found = await asyncio.to_thread(work)
        else:
            run = contextvars.copy_context().run
            found = await asyncio.get_running_loop().run_in_executor(None, run, work)
        assert switch.state == state
        await respond(send, found.encode())

    assert Browser(wrap(app)).send(method).body == state.encode()


def test_s3_concurrent_requests_keep_their_own_states(wrap: Wrap) -> None:
    switch = Switch()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen = [switch.state]
        if scope["query_string"]:
            switch.use_slave() if scope["query_string"] == b"slave" else switch.use_master()
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(switch.state)
        await respond(send, " ".join(seen).encode())

    async def main() -> list[bytes]:
        requests = [("GET", ""), ("POST", ""), ("GET", "master"), ("POST", "slave")]
        answers = await asyncio.gather(*[Browser(wrap(app)).asend(*request) for request in requests])
        return [answer.body for answer in answers]

    assert asyncio.run(main()) == [
        b"slave slave slave slave",
        b"master master master master",
        b"slave master master master",
        b"master slave slave slave",
    ]


def test_s3_an_unbalanced_request_does_not_change_the_state_of_the_next(wrap: Wrap) -> None:
    """Even on a server whose connection takes the context over in which it was called."""
    switch = Switch()
    contexts: list[contextvars.Context] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        before = switch.state
        switch.use_master()
        switch.use_slave()
        use_master().__enter__()
        await receive()
        await respond(send, before.encode())

    class Keeping(Exchange):
        async def _receive(self) -> Any:
            contexts.append(contextvars.copy_context())
            return await super()._receive()

        async def _send(self, message: Any) -> None:
            contexts.append(contextvars.copy_context())
            await super()._send(message)

    async def main() -> None:
        for method, state in STATES * 2:
            context = contexts[-1] if contexts else contextvars.copy_context()
            assert context.run(stack) is None
            exchange = Keeping(wrap(app), http_scope(method))
            await asyncio.get_running_loop().create_task(exchange.run(), context=context)
            assert exchange.body == state.encode()

    asyncio.run(main())
    assert {context.run(stack) for context in contexts} == {None}


def test_s2_revert_does_not_undo_the_middleware(wrap: Wrap) -> None:
    switch = Switch()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        switch.use_master()
        switch.revert()
        with pytest.raises(RevertError):
            switch.revert()
        await respond(send, switch.state.encode())

    with switch.use_slave():
        assert Browser(wrap(app)).send().body == b"slave"


class Client:
    """A request whose client disconnects before the first piece of the body, or after it."""

    def __init__(self, switch: Switch, *, when: str) -> None:
        self.switch = switch
        self.when = when
        self.cleaned: list[str] = []
        self.waits = asyncio.Event()

    async def app(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            with use_master():
                await send({"type": "http.response.start", "status": 200, "headers": []})
                if self.when == "after the first piece":
                    await send({"type": "http.response.body", "body": b"one", "more_body": True})
                self.waits.set()
                assert (await receive())["type"] == "http.request"
                assert (await receive())["type"] == "http.disconnect"
        finally:
            self.cleaned.append(self.switch.state)
            await asyncio.sleep(0)
            self.cleaned.append(self.switch.state)

    async def asend(self, app: App, *, cancels: bool) -> Exchange:
        exchange = Exchange(app, http_scope())
        context = contextvars.copy_context()
        task = asyncio.get_running_loop().create_task(exchange.run(), context=context)
        await self.waits.wait()
        if cancels:
            task.cancel()
        exchange.gone.set()
        with suppress(asyncio.CancelledError, AssertionError):
            await task
        assert context.run(stack) is None
        return exchange


@pytest.mark.parametrize("when", ["before the first piece", "after the first piece"])
@pytest.mark.parametrize("cancels", [True, False], ids=["the task is cancelled", "the application is told"])
def test_s9_a_disconnect_cleans_up_in_the_state_of_the_request(wrap: Wrap, when: str, cancels: bool) -> None:
    async def main() -> None:
        client = Client(Switch(), when=when)
        exchange = await client.asend(wrap(client.app), cancels=cancels)
        assert client.cleaned == ["slave", "slave"]
        assert exchange.started.is_set() is (when == "after the first piece" or not cancels)

    asyncio.run(main())


def test_the_end_of_a_cancelled_request_ends_its_scope(wrap: Wrap) -> None:
    scopes: list[Any] = []

    async def main() -> None:
        client = Client(Switch(), when="after the first piece")

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            frame = stack()
            assert frame is not None
            scopes.append(frame.scope)
            await client.app(scope, receive, send)

        await client.asend(wrap(app), cancels=True)

    asyncio.run(main())
    assert [scope.ended for scope in scopes] == [True]


def test_s3_a_task_that_outlives_its_request_keeps_its_state(wrap: Wrap) -> None:
    switch = Switch()
    seen: list[str] = []

    async def main() -> None:
        over = asyncio.Event()

        async def later() -> None:
            await over.wait()
            seen.append(switch.state)

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            tasks.append(asyncio.create_task(later()))
            await respond(send, b"")

        tasks: list[asyncio.Task[None]] = []
        await Browser(wrap(app)).asend()
        over.set()
        await tasks[0]

    asyncio.run(main())
    assert seen == ["slave"]


def test_lifespan_passes_unchanged(wrap: Wrap) -> None:
    got: list[Any] = []
    switch = Switch()

    async def app(*arguments: Any) -> None:
        assert stack() is None
        got.extend([*arguments, switch.state])

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    scope = {"type": "lifespan"}
    asyncio.run(wrap(app)(scope, receive, send))  # type: ignore[arg-type]
    assert got == [scope, receive, send, "master"]
    assert got[0] is scope


def test_s2_async_with_does_the_same_as_with(wrap: Wrap) -> None:
    switch = Switch()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen = [switch.state]
        for block in (use_master, switch.use_master):
            async with block():
                seen.append(switch.state)
                await asyncio.sleep(0)
                with use_slave():
                    seen.append(switch.state)
            seen.append(switch.state)
        with suppress(LookupError):
            async with use_master():
                raise LookupError
        seen.append(switch.state)
        await respond(send, " ".join(seen).encode())

    assert Browser(wrap(app)).send().body == b"slave master slave slave master slave slave slave"


def test_decorators_hold_for_coroutine_functions_and_async_generators(wrap: Wrap) -> None:
    switch = Switch()

    @use_master
    async def stock() -> str:
        await asyncio.sleep(0)
        return switch.state

    @use_master
    async def pieces() -> AsyncIterator[str]:
        yield switch.state
        yield switch.state

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen = [switch.state, *await asyncio.gather(stock(), stock()), switch.state]
        async for piece in pieces():
            seen += [piece, switch.state]
        await respond(send, " ".join(seen).encode())

    assert Browser(wrap(app)).send().body == b"slave master master slave master slave master slave"


@pytest.mark.parametrize(("method", "state"), [("GET", "slave"), ("POST", "master")])
def test_nested_middleware_sets_one_state(wrap: Wrap, method: str, state: str) -> None:
    answer = Browser(wrap(wrap(showing(Switch())))).send(method)
    assert (answer.body, answer.values("Replswitch")) == (state.encode(), [f"{state}; reason=method"] * 2)


def test_s3_a_request_inside_a_request_has_its_own_state(wrap: Wrap) -> None:
    switch = Switch()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        inner = await Browser(wrap(showing(switch))).asend("GET")
        await respond(send, b"%s %s" % (inner.body, switch.state.encode()))

    assert Browser(wrap(app)).send("POST").body == b"slave master"


def test_r4_a_marker_by_time_puts_the_request_in_master_state(wrap: Wrap, token: Callable[..., str]) -> None:
    switch = Switch()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        with switch.use_slave():
            await respond(send, switch.state.encode())

    answer = Browser(wrap(app)).send(headers=(("cookie", "other=1"), ("cookie", f"just_updated={token()}")))
    assert (answer.body, answer.told) == (b"master", "master; reason=marker")
