"""FastAPI and Starlette in the middleware: endpoints, dependencies, streams, background tasks, error pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.test_asgi.conftest import ASGIBoard, Browser, Exchange, http_scope, required
from tests.test_asgi.test_async_session import numbers, shop_on, write
from tests.test_wsgi.test_replay import count

from replswitch.decorators import use_master, use_slave

fastapi, background, responses = map(required, ("fastapi", "starlette.background", "starlette.responses"))
pytestmark = pytest.mark.parametrize("served", ["sqlite"], indirect=True)

KINDS = pytest.mark.parametrize("kind", ["def", "async def"])


def endpoint(kind: str, work: Callable[[], Any]) -> Callable[[], Any]:
    """An endpoint that FastAPI runs in a thread, or in the event loop."""

    async def awaited() -> Any:
        await asyncio.sleep(0)
        return work()

    def called() -> Any:
        return work()

    return called if kind == "def" else awaited


@pytest.fixture(params=["without other middleware", "in BaseHTTPMiddleware"])
def api(board: ASGIBoard, request: pytest.FixtureRequest) -> Any:
    """A board: GET shows the numbers, POST writes ``?n=…``; as JSON.

    BaseHTTPMiddleware of Starlette runs it in another task, and passes its messages on.
    """
    api = fastapi.FastAPI()
    if request.param == "in BaseHTTPMiddleware":

        async def passing(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        api.middleware("http")(passing)
    api.get("/")(board.numbers)

    def add(n: int) -> None:
        board.write(n)

    async def form(n: int) -> Any:
        board.write(n)
        return responses.RedirectResponse("/", 303)

    api.post("/", status_code=201)(add)
    api.post("/form")(form)
    return api


@pytest.mark.parametrize("path", ["/", "/form"])
def test_m1_the_next_get_sees_the_write(board: ASGIBoard, api: Any, path: str) -> None:
    browser = Browser(board.within(api))
    board.pair.stop_slave()
    assert len(browser.send("POST", "n=2", path=path).cookies) == 1
    assert browser.send().body == b"[1,2]"
    assert Browser(board.within(api)).send().body == b"[1]"


def test_m1_each_of_many_concurrent_visitors_sees_their_own_write(board: ASGIBoard, api: Any) -> None:
    board.pair.stop_slave()
    app = board.within(api)

    async def visit(number: int) -> bool:
        browser = Browser(app)
        await browser.asend("POST", f"n={number}", path="/form" if number % 2 else "/")
        return str(number).encode() in (await browser.asend()).body.strip(b"[]").split(b",")

    async def main() -> list[bool]:
        return list(await asyncio.gather(*map(visit, range(2, 22))))

    assert all(asyncio.run(main()))


@KINDS
def test_m1_an_error_page_for_an_unhandled_exception_is_marked(board: ASGIBoard, api: Any, kind: str) -> None:
    def fail() -> None:
        board.write(2)
        raise LookupError

    api.post("/fail")(endpoint(kind, fail))

    async def main() -> Exchange:
        exchange = Exchange(board.within(api), http_scope("POST", "/fail"))
        with suppress(LookupError):
            await exchange.run()
        return exchange

    answer = asyncio.run(main())
    assert (answer.code, len(answer.cookies)) == (500, 1)


@KINDS
@pytest.mark.parametrize("dependency", ["def", "async def", "async def with yield"])
def test_s3_async_dependencies_switch_the_endpoint_and_sync_ones_do_not(
    board: ASGIBoard, api: Any, kind: str, dependency: str
) -> None:
    def sync() -> None:
        board.db.use_master()

    async def asynchronous() -> None:
        board.db.use_master()

    async def with_yield() -> AsyncIterator[None]:
        with use_master():
            yield

    found = {"def": sync, "async def": asynchronous, "async def with yield": with_yield}[dependency]
    api.get("/side", dependencies=[fastapi.Depends(found)])(endpoint(kind, lambda: board.db.state))
    side = "slave" if dependency == "def" else "master"
    app = board.within(api)
    for _ in range(2):
        assert Browser(app).send(path="/side").body == f'"{side}"'.encode()


@KINDS
def test_a_decorated_endpoint_runs_in_the_state_of_its_decorator(board: ASGIBoard, api: Any, kind: str) -> None:
    api.get("/stock")(use_master(endpoint(kind, lambda: board.db.state)))
    assert Browser(board.within(api)).send(path="/stock").body == b'"master"'


@KINDS
def test_r5_a_view_counter_runs_again_and_leaves_its_dependencies(board: ASGIBoard, api: Any, kind: str) -> None:
    left: list[str] = []

    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        finally:
            left.append("async")

    def in_a_thread() -> Iterator[None]:
        try:
            yield
        finally:
            left.append("sync")

    depends = [fastapi.Depends(dependency), fastapi.Depends(in_a_thread)]
    api.get("/count", dependencies=depends)(endpoint(kind, lambda: count(board).decode()))
    answer = Browser(board.within(api)).send(path="/count")
    assert (answer.body, answer.told.endswith("reason=replay")) == (b'"1 2"', True)
    assert sorted(left) == ["async", "async", "sync", "sync"]
    assert board.on("master") == [1, 2]


@pytest.mark.parametrize("kind", ["a generator", "an async generator"])
def test_s9_the_pieces_of_a_stream_are_produced_in_the_state_of_the_request(
    board: ASGIBoard, api: Any, kind: str
) -> None:
    def pieces() -> Iterator[str]:
        yield from (board.db.state, " ", board.db.state)

    async def async_pieces() -> AsyncIterator[str]:
        with use_slave():
            yield board.db.state
            yield " "
            yield board.db.state

    def stream() -> Any:
        return responses.StreamingResponse(pieces() if kind == "a generator" else async_pieces())

    api.api_route("/stream", methods=["GET", "POST"])(stream)
    assert Browser(board.within(api)).send(path="/stream").body == b"slave slave"
    body = Browser(board.within(api)).send("POST", path="/stream").body
    assert body == (b"master master" if kind == "a generator" else b"slave slave")


def test_m7_a_write_in_a_stream_before_its_first_piece_is_marked(board: ASGIBoard, api: Any) -> None:
    def pieces() -> Iterator[str]:
        board.write(2)
        yield "written"

    api.post("/stream")(lambda: responses.StreamingResponse(pieces()))
    assert len(Browser(board.within(api)).send("POST", path="/stream").cookies) == 1


@KINDS
def test_m7_a_background_task_writes_in_the_state_of_its_request(
    board: ASGIBoard, api: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[str] = []

    def work() -> None:
        states.append(board.db.state)
        board.write(2)

    task = background.BackgroundTask(endpoint(kind, work))
    api.post("/later")(lambda: responses.PlainTextResponse("accepted", 202, background=task))
    answer = Browser(board.within(api)).send("POST", path="/later")
    assert (states, answer.cookies) == (["master"], [])
    assert [" in write. " in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "scope",
    ["function", "request", "request, and hold"],
    ids=["scope=function is marked", "scope=request is logged", "scope=request with hold is marked"],
)
def test_m7_the_scope_of_a_dependency_decides_if_a_commit_after_its_yield_is_marked_or_logged(
    board: ASGIBoard, api: Any, scope: str, caplog: pytest.LogCaptureFixture
) -> None:
    """FastAPI runs it after the response, unless the dependency has the scope "function"."""

    async def unit_of_work() -> AsyncIterator[None]:
        yield
        board.write(2)

    depends = [fastapi.Depends(unit_of_work, scope=scope.partition(",")[0])]
    api.post("/work", dependencies=depends)(lambda: "done")
    app = board.within(api, hold=scope.endswith("hold"))
    is_late = scope == "request"
    assert len(Browser(app).send("POST", path="/work").cookies) == (0 if is_late else 1)
    assert [" in write. " in record.message for record in caplog.records] == [True] * is_late


def test_m1_a_commit_of_a_dependency_with_an_async_session_is_marked_and_seen(board: ASGIBoard, api: Any) -> None:
    async def main() -> None:
        async with shop_on(board.pair) as shop:

            async def unit_of_work() -> AsyncIterator[AsyncSession]:
                async with shop.session.begin() as session:
                    yield session

            async def add(session: AsyncSession) -> None:
                await write(session, 2)

            async def show(session: AsyncSession) -> list[int]:
                return await numbers(session)

            depends = Annotated[AsyncSession, fastapi.Depends(unit_of_work, scope="function")]
            for call, route in ((add, api.post("/async", status_code=201)), (show, api.get("/async"))):
                call.__annotations__["session"] = depends
                route(call)
            browser = Browser(board.within(api))
            board.pair.stop_slave()
            assert len((await browser.asend("POST", path="/async")).cookies) == 1
            assert (await browser.asend(path="/async")).body == b"[1,2]"

    asyncio.run(main())


@pytest.mark.parametrize(
    "how",
    ["a decorator", "a decorator, and flush", "a dependency"],
    ids=["use_master decorates, no flush in it", "use_master decorates, flush in it", "use_master in a dependency"],
)
def test_s8_a_flush_in_a_dependency_after_use_master_in_the_endpoint_is_written_and_marked(
    board: ASGIBoard, api: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The dependency commits outside the decorated endpoint."""

    class Base(DeclarativeBase): ...

    class Message(Base):
        __tablename__ = "wsgi_message"
        n: Mapped[int] = mapped_column(primary_key=True)

    async def main() -> None:
        async with shop_on(board.pair) as shop:

            async def unit_of_work() -> AsyncIterator[AsyncSession]:
                async with shop.session.begin() as session:
                    yield session

            async def on_master() -> AsyncIterator[None]:
                with use_master():
                    yield

            async def add(session: Any) -> None:
                session.add(Message(n=2))
                if how.endswith("flush"):
                    await session.flush()

            add.__annotations__["session"] = Annotated[Any, fastapi.Depends(unit_of_work, scope="function")]
            depends = [fastapi.Depends(on_master)] if how == "a dependency" else []
            api.get("/add", dependencies=depends)(add if depends else use_master(add))
            assert len((await Browser(board.within(api)).asend(path="/add")).cookies) == 1

    asyncio.run(main())
    assert board.on("master") == [1, 2]
    assert ["moved to the master" in record.message for record in caplog.records] == [True] * (how == "a decorator")
