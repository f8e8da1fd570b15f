"""The proxy between an application and a server: it passes data on, and simulates faults."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pymysql
import pytest
from tests.eventually import eventually

from replswitch.errors import ConfigurationError
from replswitch.testing import MariaDBPair, PairError, Proxy

LONG = 10.0
SHORT = 0.3
"""Seconds in which something does not happen that must not."""


class Echo:
    """A server that answers each line with its own letter before it."""

    def __init__(self, letter: bytes = b"a") -> None:
        self.letter = letter
        self.heard: list[bytes] = []
        self.hung_up = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as lines:
                for line in lines:
                    self.heard.append(line)
                    client.sendall(self.letter + line)
        except OSError:
            pass
        self.hung_up.set()


def proxies() -> int:
    """How many threads are at work for proxies."""
    return sum(thread.name == "proxy" for thread in threading.enumerate())


@pytest.fixture
def echo() -> Iterator[Echo]:
    with closing(Echo()) as server:
        yield server


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


def connect(proxy: Proxy, timeout: float = LONG) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout)


def ask(client: socket.socket, line: bytes = b"hello\n") -> bytes:
    client.sendall(line)
    return answer(client, len(line) + 1)


def answer(client: socket.socket, size: int = 7) -> bytes:
    got = b""
    while len(got) < size and (more := client.recv(size - len(got))):
        got += more
    return got


def says_nothing(client: socket.socket) -> bool:
    client.settimeout(SHORT)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(LONG)
    return False


def hangs_up(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_proxy_passes_data_in_both_directions(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        assert ask(client) == b"ahello\n"
        assert ask(client, b"x" * 1_000_000 + b"\n") == b"a" + b"x" * 1_000_000 + b"\n"
        assert proxy.connections == 1
    assert echo.hung_up.wait(LONG)


def test_a_proxy_serves_hundreds_of_connections(proxy: Proxy) -> None:
    with ExitStack() as opened:
        clients = [opened.enter_context(connect(proxy)) for _ in range(400)]
        for client in clients:
            client.sendall(b"hello\n")
        assert [answer(client) for client in clients] == [b"ahello\n"] * 400
        assert proxy.connections == 400
        proxy.cut()
        assert all(hangs_up(client) for client in clients)
        assert proxy.connections == 0
    with connect(proxy) as client:
        assert ask(client) == b"ahello\n"


def test_a_disconnect_of_the_server_reaches_the_client(proxy: Proxy, echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy.target = server.getsockname()[1]
        with connect(proxy) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"bye")
            assert answer(client, 3) == b"bye"
            assert hangs_up(client)


def test_a_proxy_without_its_server_closes_connections(proxy: Proxy, echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        proxy.target = ("127.0.0.1", nobody.getsockname()[1])
    with connect(proxy) as client:
        assert hangs_up(client)
    proxy.target = echo.port
    with connect(proxy) as client:
        assert ask(client) == b"ahello\n"


def test_after_a_change_of_the_target_new_connections_use_it_and_open_connections_stay(
    proxy: Proxy, echo: Echo
) -> None:
    with closing(Echo(b"b")) as other, connect(proxy) as old:
        assert ask(old) == b"ahello\n"
        proxy.target = other.port
        assert proxy.target == ("127.0.0.1", other.port)
        with connect(proxy) as new:
            assert ask(new) == b"bhello\n"
            assert ask(old) == b"ahello\n"


class TestDrop:
    def test_drop_discards_data_and_keeps_connections_open(self, proxy: Proxy, echo: Echo) -> None:
        with connect(proxy) as old:
            assert ask(old) == b"ahello\n"
            proxy.drop()
            with connect(proxy) as new:
                for client in (old, new):
                    client.sendall(b"again\n")
                    assert says_nothing(client)
                assert echo.heard == [b"hello\n"]
                proxy.restore()
                assert answer(old) == answer(new) == b"aagain\n"

    def test_drop_discards_answers(self, proxy: Proxy, echo: Echo) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            proxy.target = server.getsockname()[1]
            with connect(proxy) as client:
                accepted, _ = server.accept()
                with accepted:
                    proxy.drop()
                    accepted.sendall(b"hello")
                    assert says_nothing(client)
                assert says_nothing(client)  # and the disconnect of the server does not arrive
                proxy.restore()
                assert answer(client, 5) == b"hello"
                assert hangs_up(client)

    def test_a_disconnect_during_drop_arrives_after_restore(self, proxy: Proxy, echo: Echo) -> None:
        client = connect(proxy)
        assert ask(client) == b"ahello\n"
        proxy.drop()
        client.sendall(b"again\n")
        client.close()
        assert not echo.hung_up.wait(SHORT)
        proxy.restore()
        assert echo.hung_up.wait(LONG)
        assert echo.heard == [b"hello\n", b"again\n"]  # as on a network, where what was sent is sent again

    def test_connections_can_be_cut_and_closed_during_drop(self, proxy: Proxy) -> None:
        with connect(proxy) as client:
            assert ask(client) == b"ahello\n"
            proxy.drop()
            proxy.cut()
            assert hangs_up(client)
        with connect(proxy) as client:
            proxy.close()
            assert hangs_up(client)


class TestDelay:
    def test_delayed_answers_arrive_late_and_in_order(self, proxy: Proxy) -> None:
        with connect(proxy) as client:
            assert ask(client) == b"ahello\n"
            proxy.delay(0.5)
            began = time.monotonic()
            client.sendall(b"one\n")
            time.sleep(0.1)
            client.sendall(b"two\n")
            assert answer(client, 10) == b"aone\natwo\n"
            assert time.monotonic() - began > 0.59

    def test_round_trips_are_the_answers_that_a_client_has_waited_for(self, proxy: Proxy, echo: Echo) -> None:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG) as client, client.makefile("rb") as told:
            assert proxy.round_trips == 0
            for count in (1, 2):
                client.sendall(b"one\n")
                told.readline()
                assert proxy.round_trips == count
            proxy.delay(3600)
            for _ in range(3):
                client.sendall(b"without waiting\n")
            eventually(lambda: len(echo.heard) == 5)
            proxy.restore()
            for _ in range(3):
                told.readline()
            assert proxy.round_trips == 3

    def test_ending_a_delay_lets_everything_through(self, proxy: Proxy) -> None:
        with connect(proxy) as client:
            proxy.delay(3600)
            client.sendall(b"one\n")
            assert says_nothing(client)
            proxy.restore()
            assert answer(client, 5) == b"aone\n"

    @pytest.mark.parametrize("seconds", [-1, "1", None, True, float("nan"), 3601])
    def test_a_wrong_delay_is_refused(self, proxy: Proxy, seconds: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"delay\(.*\): it must be a number of seconds"):
            proxy.delay(seconds)


class TestCut:
    def test_cut_after_ends_an_answer_in_its_middle(self, proxy: Proxy) -> None:
        with connect(proxy) as old:
            assert ask(old) == b"ahello\n"
            proxy.cut_after(10)
            with connect(proxy) as new:
                for client in (old, new):
                    assert ask(client) == b"ahello\n"
                    assert ask(client) == b"ahe"
                    assert hangs_up(client)
        proxy.restore()
        with connect(proxy) as client:
            assert ask(client, b"longer than ten\n") == b"alonger than ten\n"

    def test_cut_after_zero_bytes_sends_no_answer(self, proxy: Proxy) -> None:
        proxy.cut_after(0)
        with connect(proxy) as client:
            assert ask(client) == b""

    @pytest.mark.parametrize("count", [-1, 1.5, "1", None, True])
    def test_cut_after_a_wrong_number_is_refused(self, proxy: Proxy, count: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"cut_after\(.*\): it must be a number of bytes"):
            proxy.cut_after(count)


class TestRefuse:
    def test_refuse_closes_open_connections_and_refuses_new_ones(self, proxy: Proxy) -> None:
        with connect(proxy) as client:
            assert ask(client) == b"ahello\n"
            proxy.refuse()
            assert hangs_up(client)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.refuse()
        proxy.restore()
        with connect(proxy) as client:
            assert ask(client) == b"ahello\n"


class TestClose:
    def test_closing_a_proxy_twice_is_no_error_and_leaves_no_thread(self, echo: Echo) -> None:
        before = proxies()
        with Proxy(echo.port) as proxy, connect(proxy) as client:
            assert proxies() == before + 1
            proxy.close()
            assert hangs_up(client)
            proxy.close()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert proxies() == before

    def test_using_a_closed_proxy_raises(self, echo: Echo) -> None:
        proxy = Proxy(echo.port)
        proxy.close()
        for act in (proxy.drop, proxy.restore, proxy.refuse, proxy.cut):
            with pytest.raises(PairError, match="the proxy is closed"):
                act()


@pytest.mark.parametrize("target", [0, 65536, "3306", ("host",), ("host", "3306"), ("host", 0), None, True, 1.5])
def test_a_wrong_target_is_refused(target: Any, proxy: Proxy) -> None:
    with pytest.raises(ConfigurationError, match="it must be the port of a server"):
        Proxy(target)
    with pytest.raises(ConfigurationError, match="it must be the port of a server"):
        proxy.target = target


def test_a_database_works_through_a_proxy(mariadb_pair: MariaDBPair) -> None:
    with Proxy(mariadb_pair.master["port"]) as proxy:
        parameters = {**mariadb_pair.master, "port": proxy.port}
        with closing(pymysql.connect(**parameters)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT REPEAT('x', 100000)")
            assert cursor.fetchone() == ("x" * 100000,)
            proxy.cut_after(50000)
            with pytest.raises(pymysql.OperationalError, match="Lost connection"):
                cursor.execute("SELECT REPEAT('x', 100000)")
        proxy.restore()
        with closing(pymysql.connect(**parameters, read_timeout=1)) as connection, connection.cursor() as cursor:
            proxy.drop()
            with pytest.raises(pymysql.OperationalError, match="timed out"):
                cursor.execute("SELECT 1")
