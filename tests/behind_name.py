"""A host name with several addresses: a lookup that the test answers, and proxies at addresses of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from replswitch.testing import Proxy

NAME: Final = "slaves.db"
ONE: Final = "127.0.0.1"
TWO: Final = "127.0.0.2"

_look_up: Final = socket.getaddrinfo


class Names:
    """Answers the lookups of `NAME` instead of ``socket.getaddrinfo``.

    Attributes:
        addresses: the addresses of `NAME`; without any, the lookup fails.
        asked: how often `NAME` was looked up.
        goes_on: lookups wait until it is set.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != NAME:
            return _look_up(host, port, *args, **options)
        self.asked += 1
        self.goes_on.wait(10)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [_answer(address, port) for address in self.addresses]


def _answer(address: str, port: int) -> Any:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.passed


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """The lookups of a name with two addresses."""
    names = Names(ONE, TWO)
    monkeypatch.setattr("socket.getaddrinfo", names)
    yield names
    names.goes_on.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that decides when a name is looked up again."""
    clock = Clock()
    monkeypatch.setattr("replswitch.engine.resolving.monotonic", clock)
    return clock


class ProxyAt(Proxy):
    """A proxy at another address of this machine.

    Args:
        target: the port that it forwards to.
        host: its address.
        port: its port; None for any.
    """

    def __init__(self, target: int, host: str, port: int | None = None) -> None:
        self._host, self._wanted = host, port
        super().__init__(target)

    async def _open(self, port: int) -> None:
        await super()._open(self._wanted or port)

    def _listen(self, port: int) -> None:
        self._listener = listener = socket.create_server((self._host, port), backlog=1000)
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept, listener)


@contextmanager
def proxies(port: int) -> Iterator[dict[str, ProxyAt]]:
    """A proxy of the server on a port at each of the two addresses, both with the same port."""
    with ProxyAt(port, ONE) as first, ProxyAt(port, TWO, first.port) as second:
        yield {ONE: first, TWO: second}


def eventually(happens: Callable[[], object]) -> None:
    """Wait until something has happened in another thread."""
    until = time.monotonic() + 5
    while not happens():
        assert time.monotonic() < until, "it does not happen within 5 s"
        time.sleep(0.005)
