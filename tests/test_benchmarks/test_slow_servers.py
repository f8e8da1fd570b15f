"""The proxies that give each query a fixed time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from cost.slow_servers import slow_servers

QUERY = b"\x09\0\0\0\x03SELECT 1"
PING = b"\x01\0\0\0\x0e"
SECONDS = 0.3


@pytest.fixture
def target() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(one: socket.socket) -> None:
            with one:
                while data := one.recv(1000):
                    one.sendall(data)

        def accept() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[one]).start()

        threading.Thread(target=accept).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def seconds(ports: list[int], request: bytes) -> float:
    """Return how long it takes until the same request is answered at all ports, sent at once."""
    connections = [socket.create_connection(("127.0.0.1", port), timeout=10) for port in ports]
    started = time.monotonic()
    for connection in connections:
        connection.sendall(request)
    for connection in connections:
        with closing(connection):
            assert connection.recv(1000) == request
    return time.monotonic() - started


def test_queries_queue_at_one_server_and_not_at_two(target: int) -> None:
    with slow_servers(target, 2, SECONDS) as (one, another):
        assert seconds([one, one, one], QUERY) >= 3 * SECONDS
        assert SECONDS <= seconds([one, another], QUERY) < 2 * SECONDS


def test_the_server_delays_queries_and_no_pings(target: int) -> None:
    with slow_servers(target, 1, 5) as (one,):
        assert seconds([one, one, one], PING) < 5
