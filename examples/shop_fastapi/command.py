"""The command line: it creates and fills the table, and serves the shop with uvicorn."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn
from shop.addresses import address
from shop.command import begin_lag, run

if TYPE_CHECKING:
    from replswitch.testing import ReplicatedPair

DRIVERS = {"mysql": "aiomysql", "postgresql": "psycopg", "sqlite": "aiosqlite"}


def main() -> int:
    """Run the shop until Ctrl-C. Return the exit code."""
    return run("shop_fastapi", "FastAPI", serve)


def serve(pair: ReplicatedPair, port: int) -> None:
    """Fill the shop, and serve it."""
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        sys.exit(f"error: cannot serve on port {port}: {os.strerror(error.errno or 0)}")
    with listener:
        os.environ["SHOP_MASTER"] = address(pair.master, DRIVERS)
        os.environ["SHOP_SLAVES"] = " ".join(address(slave, DRIVERS) for slave in pair.slaves)
        os.environ["SHOP_SECRET"] = secrets.token_urlsafe(50)  # signs the markers; a new one for each run of this shop
        asyncio.run(fill())
        pair.wait_caught_up()
        begin_lag(pair)
        print(f"The shop is open: http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config("shop_fastapi.main:app", log_level="warning")).run(sockets=[listener])


async def fill() -> None:
    """Create the table, and add the first articles."""
    from .database import Session, master  # noqa: PLC0415 - it reads the environment
    from .models import Article, Base  # noqa: PLC0415 - imported together with it

    async with master.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Session.begin() as session:
        session.add_all([Article(name="Teapot", stock=12), Article(name="Cup", stock=48)])
    await master.dispose()  # uvicorn has an event loop of its own
