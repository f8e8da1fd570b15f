"""A link of an asyncio driver belongs to the process that opened it (S12), as with a server that forks its workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.asyncio_drivers import OF_SERVERS, PAIRS, address, installed
from tests.behind_name import NAME

from replswitch.testing import ReplicatedPair

FORK = """
import asyncio, gc, json, os, socket, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tests.behind_name import Names
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate

urls, number, driver = json.loads(sys.argv[1])
master, slave = map(create_async_engine, urls)
db = replicate(master, [slave])
socket.getaddrinfo = Names("127.0.0.1")
db.servers.look_up()
engines = (master, *map(AsyncEngine, db.slaves))

async def ids():
    # The servers and ids of the sessions of two connections to each server.
    connections = [(engine is not master, await engine.connect()) for engine in engines for _ in range(2)]
    found = {(server, await each.scalar(text(f"SELECT {number}"))) for server, each in connections}
    for _, each in connections:
        await each.close()
    return found

async def routed():
    found = []
    for use in use_master, use_slave:
        with use():
            async with AsyncSession(master, sync_session_class=RoutingSession) as session:
                found.append((use is use_slave, await session.scalar(text(f"SELECT {number}"))))
    return found

async def end():
    await master.dispose()
    await slave.dispose()

def in_child(use=False, close=True, clear=None):
    child = os.fork()
    if not child and not close:
        sys.exit(0)
    if not child:
        with asyncio.Runner() as runner:
            if use:
                found = runner.run(routed())
                mine = runner.run(ids())
                is_kept = mine == runner.run(ids()) and mine.issuperset(found)
                assert is_kept, "the child does not keep its own connections"
                assert before.isdisjoint(mine), "the child uses the parent's connections"
            runner.run(end())
        for name in list(sys.modules) if clear else ():
            if name.partition(".")[0] == clear:
                vars(sys.modules[name]).clear()  # as an ending interpreter does, but before other modules
        gc.collect()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return loop.run_until_complete(asyncio.wait_for(ids(), 10)) == before

loop = asyncio.new_event_loop()
before = loop.run_until_complete(ids())
print(in_child(close=False), in_child(), in_child(clear='replswitch'), in_child(clear=driver), in_child(use=True))
loop.run_until_complete(end())
loop.close()
"""


@pytest.mark.parametrize("driver", OF_SERVERS)
def test_s12_a_forked_child_opens_its_own_async_links_and_leaves_those_of_the_parent_open(
    request: pytest.FixtureRequest, driver: str
) -> None:
    run(request, driver)


@pytest.mark.parametrize("driver", ["aiomysql", "psycopg"])
def test_s12_a_forked_child_opens_its_own_async_links_to_the_addresses_of_a_name(
    request: pytest.FixtureRequest, driver: str
) -> None:
    run(request, driver, slave={"host": NAME}, options="?resolve=true")


def run(request: pytest.FixtureRequest, driver: str, slave: dict[str, str] | None = None, options: str = "") -> None:
    pair: ReplicatedPair = request.getfixturevalue(PAIRS[installed(driver)])
    number = "CONNECTION_ID()" if PAIRS[driver] == "mariadb_pair" else "pg_backend_pid()"
    urls = [address(pair.master, driver), address(pair.slaves[0] | (slave or {}), driver) + options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORK, json.dumps([urls, number, driver])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    assert done.stdout == "True True True True True\n"
