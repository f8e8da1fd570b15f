"""A TCP proxy that simulates faults of the network between an application and a server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from replswitch.errors import ConfigurationError
from replswitch.testing.errors import PairError
from replswitch.testing.launch import free_port

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

HOST = "127.0.0.1"

CHUNK = 65536
"""Bytes that are read at once."""

WITHIN = 10.0
"""Seconds that a call in the proxy's own thread may take. This thread never waits for a client or a server."""


class Proxy:
    """A port of 127.0.0.1 that forwards connections to a server, and can break them.

    The latest call applies, even to open connections. One thread serves any number of connections. Close the
    proxy, or use it as a context manager.

    Args:
        target: the port of 127.0.0.1 that the proxy forwards to, or ``(host, port)``.

    Raises:
        ConfigurationError: ``target`` is not a port.

    Attributes:
        port: the port to connect to.
    """

    def __init__(self, target: int | tuple[str, int]) -> None:
        self._target = _address(target)
        self._listener: socket.socket | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._dropping = False
        self._delay = 0.0
        self._cut_after: int | None = None
        self._round_trips = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = 0
        while not self.port:
            try:
                self._do(self._open(free_port()))
            except OSError:  # another process was faster
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def target(self) -> tuple[str, int]:
        """The target of new connections. It can be set at any time. Open connections keep their server."""
        return self._target

    @target.setter
    def target(self, target: int | tuple[str, int]) -> None:
        self._target = _address(target)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def round_trips(self) -> int:
        """How often a client has waited for an answer since the proxy was made.

        The first round trip of a connection is its greeting, or the answer to its first data. After that, each answer
        that follows new data of the client is one round trip, however many packets the data and the answer have. With
        `delay`, data that the client sends without waiting for an answer is one round trip, as it is on a network.
        """
        return self._round_trips

    def restore(self) -> None:
        """Forward everything at once again. Data held back by `drop` arrives now, as on a network."""
        self._do(self._set())

    def drop(self) -> None:
        """Drop packets. Connections are accepted and stay open, but nothing is forwarded, not even their end."""
        self._do(self._set(dropping=True))

    def delay(self, seconds: float) -> None:
        """Delay the answers of the server.

        Args:
            seconds: 0 or more; each answer takes this time longer.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 3600:
            raise ConfigurationError(f"delay({seconds!r}): it must be a number of seconds from 0 to 3600")
        self._do(self._set(delay=seconds))

    def cut_after(self, count: int) -> None:
        """Close each connection, open or new, in the middle of an answer.

        Args:
            count: bytes of answers that each connection still forwards; 0 or more.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ConfigurationError(f"cut_after({count!r}): it must be a number of bytes, 0 or more")
        self._do(self._set(cut_after=count))

    def refuse(self) -> None:
        """Close all connections, and refuse new ones, as if no server listened on the port."""
        self._do(self._set(listening=False))
        self.cut()

    def cut(self) -> None:
        """Close all connections now. New connections are still accepted."""
        self._do(self._cut())

    def close(self) -> None:
        """Close the port and all connections. It is no error to close a proxy twice."""
        if self._loop.is_closed():
            return
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WITHIN)
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the proxy's thread, and return its result."""
        if self._loop.is_closed():
            what.close()
            raise PairError("the proxy is closed")
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(WITHIN)

    async def _set(
        self, *, dropping: bool = False, delay: float = 0.0, cut_after: int | None = None, listening: bool = True
    ) -> None:
        self._dropping, self._delay, self._cut_after = dropping, delay, cut_after
        for connection in self._connections.values():
            connection.changed(cut_after)
        if listening and self._listener is None:
            self._listen(self.port)
        elif not listening and self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _open(self, port: int) -> None:
        self._listen(port)
        self.port = port

    def _listen(self, port: int) -> None:
        self._listener = listener = socket.create_server((HOST, port), backlog=1000)
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # the client has disconnected already
            return
        client.setblocking(False)
        connection = _Connection(self, client, self._cut_after)
        task = self._loop.create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).end()

    async def _cut(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # so that the callbacks of the ended tasks run

    def count_round_trip(self) -> None:
        """Count one round trip, because the first part of an answer is forwarded."""
        self._round_trips += 1

    async def passed(self, connection: _Connection, arrived: float, *, is_answer: bool) -> None:
        """Wait until data of a connection may be forwarded.

        ``arrived`` is the time at which the data arrived, by the clock of the loop. With ``is_answer``, the data comes
        from the server, so that `delay` applies to it.
        """
        while True:
            wait = arrived + self._delay - self._loop.time() if is_answer and self._delay else 0
            if self._dropping:
                wait = 3600
            if wait <= 0:
                return
            change = connection.change
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(change.wait(), wait)


class _Connection:
    """One connection through the proxy.

    Attributes:
        change: the event that the next call of one of the proxy's methods sets. Each call replaces it.
    """

    def __init__(self, proxy: Proxy, client: socket.socket, cut_after: int | None) -> None:
        self.change = asyncio.Event()
        self._proxy = proxy
        self._client = client
        self._server = socket.socket()
        self._left = cut_after
        self._is_waiting = True  # a connection that was just opened waits for a greeting

    def changed(self, cut_after: int | None) -> None:
        """Apply the latest call of one of the proxy's methods, even to data that is waiting."""
        self._left = cut_after
        change, self.change = self.change, asyncio.Event()
        change.set()

    def end(self) -> None:
        """Close both sides."""
        self._client.close()
        self._server.close()

    async def run(self) -> None:
        """Serve the connection until the server closes it. If the client closes it, forward its end to the server."""
        await self._proxy.passed(self, 0, is_answer=False)
        self._server.setblocking(False)
        questions: asyncio.Task[None] | None = None
        with contextlib.suppress(OSError):  # no server listens, or a peer resets the connection
            await asyncio.get_running_loop().sock_connect(self._server, self._proxy.target)
            for one in (self._client, self._server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            questions = asyncio.create_task(self._pass_on(self._client, self._server, is_answer=False))
            try:
                await self._pass_on(self._server, self._client, is_answer=True)
            finally:
                questions.cancel()
                await asyncio.gather(questions, return_exceptions=True)

    async def _pass_on(self, source: socket.socket, to: socket.socket, *, is_answer: bool) -> None:
        """Forward the data in its order, each piece when its delay is over."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        reading = asyncio.create_task(self._read(source, arrived))
        try:
            while True:
                moment, data = await arrived.get()
                await self._proxy.passed(self, moment, is_answer=is_answer)
                if not data:
                    to.shutdown(socket.SHUT_WR)
                    return
                if not is_answer:
                    self._is_waiting = True
                elif self._is_waiting:
                    self._is_waiting = False
                    self._proxy.count_round_trip()
                if is_answer and self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data)
                await loop.sock_sendall(to, data)
                if is_answer and self._left is not None and self._left <= 0:
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    @staticmethod
    async def _read(source: socket.socket, arrived: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        data = b" "
        while data:
            try:
                data = await loop.sock_recv(source, CHUNK)
            except OSError:  # a connection that was reset has ended
                data = b""
            arrived.put_nowait((loop.time(), data))


def _address(target: object) -> tuple[str, int]:
    """Return the host and the port of a target."""
    match target:
        case bool():
            pass
        case int(port) if 0 < port < 65536:
            return HOST, port
        case (str(host), int(port)) if 0 < port < 65536:
            return host, port
    raise ConfigurationError(f"target={target!r}: it must be the port of a server, or its (host, port)")
