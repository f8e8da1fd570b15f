"""Proxies that make a server slow in a known way: each lets one query after another take a fixed time.

Behind such a proxy a server answers a fixed number of queries per second, independent of the machine. Queries that are
sent at the same time wait in a queue, also over different connections. A query is a COM_QUERY that begins with SELECT.
All other packets pass at once, so opening a connection costs nothing. The protocol must not be encrypted.

The proxies run in a process of their own, which `slow_servers` starts: in the process of their clients they would wait
for the same interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from shared.process import command, environment

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterator

HOST: Final = "127.0.0.1"

# The first packet of a command has the number 0 in its fourth byte; then come COM_QUERY and the statement.
_QUERY: Final = b"\0\x03SELECT"

_CHUNK: Final = 65536


@contextmanager
def slow_servers(target: int, count: int, seconds: float) -> Iterator[list[int]]:
    """Start proxies for one server, and return their ports.

    Args:
        target: the server's port of 127.0.0.1.
        count: how many proxies.
        seconds: the time of each query at each of them.
    """
    proxies = command("cost.slow_servers", str(target), str(count), str(seconds))
    with subprocess.Popen(proxies, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("The proxies have not started. The lines above have the reason.")
        yield json.loads(line)
        # The process ends with its stdin, which the end of the block closes.


class SlowServer:
    """One proxy.

    Args:
        target: the server's port.
        seconds: the time of each query.
    """

    def __init__(self, target: int, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._free_at = 0.0
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen, and return the port."""
        server = await asyncio.start_server(self._accept, HOST, 0, backlog=1000)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def _accept(self, client: StreamReader, to_client: StreamWriter) -> None:
        # A task of our own, because asyncio reports its own as failed when the process ends and it is cancelled.
        task = asyncio.create_task(self._serve(client, to_client))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, client: StreamReader, to_client: StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(HOST, self._target)
        answers = asyncio.Queue[tuple[float, bytes]]()
        due = 0.0  # when the answer to the latest query may be passed on

        async def requests() -> None:
            with contextlib.suppress(OSError):
                await pass_requests_on()
            to_server.close()

        async def pass_requests_on() -> None:
            nonlocal due
            while data := await client.read(_CHUNK):
                if data[3 : 3 + len(_QUERY)].upper() == _QUERY:
                    now = asyncio.get_running_loop().time()
                    due = self._free_at = max(self._free_at, now) + self._seconds
                to_server.write(data)

        async def arrivals() -> None:
            with contextlib.suppress(OSError):  # it was hung up on
                while data := await server.read(_CHUNK):
                    answers.put_nowait((due, data))
            answers.put_nowait((0.0, b""))

        tasks = [asyncio.create_task(each()) for each in (requests, arrivals)]
        try:
            while (answer := await answers.get())[1]:
                moment, data = answer
                await asyncio.sleep(moment - asyncio.get_running_loop().time())
                to_client.write(data)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            to_server.close()
            to_client.close()


async def main(target: int, count: int, seconds: float) -> None:
    """Start the proxies, print their ports, and serve until stdin ends."""
    ports = [await SlowServer(target, seconds).start() for _ in range(count)]
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
