"""The same board in several frameworks, for servers that run it in a process of their own: see test_servers.py."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import fastapi
import litestar
import quart
from litestar.middleware import DefineMiddleware
from starlette.responses import RedirectResponse, StreamingResponse
from tests.test_asgi.conftest import Receive, Send
from tests.test_wsgi.conftest import SECRET

import replswitch
from replswitch.asgi import ReplicationMiddleware
from replswitch.decorators import use_master, use_slave
from replswitch.state import stack

db = replswitch.connect(**json.loads(os.environ["REPLSWITCH_TESTS_PAIR"]))
cleaned: list[str] = []
"""The states in which requests whose client has disconnected were cleaned up."""


def numbers() -> list[int]:
    with db.cursor() as cursor:
        cursor.execute("SELECT n FROM wsgi_message ORDER BY n")
        return [row[0] for row in cursor.fetchall()]


def write(number: int) -> None:
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO wsgi_message VALUES ({number})")


def command(text: str) -> str:
    """Do what a message of a websocket asks for, and answer it."""
    if text.startswith("write "):
        write(int(text.removeprefix("write ")))
    with use_slave():
        return " ".join(map(str, numbers()))


def fail(number: int) -> Any:
    write(number)
    raise LookupError


def unbalance() -> None:
    """Leave three instructions behind."""
    db.use_master()
    db.use_slave()
    use_master().__enter__()


# FastAPI

FASTAPI = fastapi.FastAPI()
FASTAPI.get("/")(numbers)
FASTAPI.get("/cleaned")(lambda: cleaned)


@FASTAPI.post("/", status_code=201)
def fastapi_add(n: int) -> str:
    write(n)
    return "written"


@FASTAPI.post("/redirect")
async def fastapi_redirect(n: int) -> Any:
    write(n)
    return RedirectResponse("./", 303)


@FASTAPI.post("/fail")
def fastapi_fail(n: int) -> None:
    fail(n)


@FASTAPI.post("/upload")
async def fastapi_upload(request: fastapi.Request) -> int:
    size = len(await request.body())
    unbalance()
    return size


@FASTAPI.post("/stream")
async def fastapi_stream() -> Any:
    async def pieces() -> Any:
        try:
            while True:
                yield db.state + " "
                await asyncio.sleep(0.01)
        finally:
            cleaned.append(db.state)

    return StreamingResponse(pieces())


@FASTAPI.websocket("/socket")
async def fastapi_socket(websocket: fastapi.WebSocket) -> None:
    if "n" in websocket.query_params:
        write(int(websocket.query_params["n"]))
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(command(text))


# Litestar


@litestar.get("/")
async def litestar_numbers() -> list[int]:
    return numbers()


@litestar.post("/")
async def litestar_add(n: int) -> str:
    write(n)
    return "written"


@litestar.post("/redirect", status_code=303)
async def litestar_redirect(n: int) -> litestar.response.Redirect:
    write(n)
    return litestar.response.Redirect("./", status_code=303)


@litestar.post("/fail", sync_to_thread=True)
def litestar_fail(n: int) -> None:
    fail(n)


@litestar.post("/upload", status_code=200)
async def litestar_upload(request: litestar.Request[Any, Any, Any]) -> int:
    size = len(await request.body())
    unbalance()
    return size


@litestar.websocket("/socket")
async def litestar_socket(socket: litestar.WebSocket[Any, Any, Any]) -> None:
    if "n" in socket.query_params:
        write(int(socket.query_params["n"]))
    await socket.accept()
    async for text in socket.iter_data("text"):
        await socket.send_text(command(str(text)))


LITESTAR = litestar.Litestar(
    [
        litestar_numbers,
        litestar_add,
        litestar_redirect,
        litestar_fail,
        litestar_upload,
        litestar_socket,
    ],
    middleware=[DefineMiddleware(ReplicationMiddleware, secret=SECRET, debug_header=True)],
    openapi_config=None,
)

# Quart

QUART = quart.Quart(__name__)


@QUART.route("/", methods=["GET", "POST"])
async def quart_numbers() -> Any:
    if quart.request.method == "GET":
        return quart.jsonify(numbers())
    write(int(quart.request.args["n"]))
    return quart.jsonify("written"), 201


@QUART.post("/redirect")
async def quart_redirect() -> Any:
    write(int(quart.request.args["n"]))
    return quart.redirect("./", 303)


@QUART.post("/fail")
async def quart_fail() -> Any:
    return fail(int(quart.request.args["n"]))


@QUART.post("/upload")
async def quart_upload() -> Any:
    size = len(await quart.request.get_data())
    unbalance()
    return quart.jsonify(size)


@QUART.websocket("/socket")
async def quart_socket() -> None:
    if "n" in quart.websocket.args:
        write(int(quart.websocket.args["n"]))
    await quart.websocket.accept()
    while True:
        await quart.websocket.send(command(str(await quart.websocket.receive())))


QUART.asgi_app = ReplicationMiddleware(QUART.asgi_app, secret=SECRET, debug_header=True)  # type: ignore[method-assign]

APPLICATIONS: dict[str, Any] = {
    "fastapi": ReplicationMiddleware(FASTAPI, secret=SECRET, debug_header=True),
    "litestar": LITESTAR,
    "quart": QUART,
}


def depth() -> int:
    """The number of instructions on the running stack."""
    number, frame = 0, stack()
    while frame is not None:
        number, frame = number + 1, frame.parent
    return number


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """Serve each framework under its name. Each response says how deep the stack was at the start of its request."""
    if scope["type"] == "lifespan":
        while (kind := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": f"{kind}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    at_start = str(depth()).encode()

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"x-depth", at_start)]}
        await send(message)

    _, name, path = scope["path"].split("/", 2)
    scope = {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode()}
    await APPLICATIONS[name](scope, receive, sending)
