"""How many questions of ours the servers get for each request: by their own counters, or by the time that they take."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.once import FIRST_WRITE, KNOWN_SLAVE, NEXT_WRITE, Once
from tests.round_trips import RoundTrips

import replswitch
from replswitch.testing import Proxy
from replswitch.testing.servers import ServerPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.test_wsgi.conftest import Board, Browser

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient", "postgresql"], indirect=True
)


class Counter:
    """Counts what both servers are asked, over connections of its own, which stay: the end of one is counted later."""

    visits = 5

    def __init__(self, pair: ServerPair, stack: ExitStack) -> None:
        self._dialect = pair.dialect
        self._cursors = [
            stack.enter_context(stack.enter_context(closing(pair.admin(server))).cursor()) for server in pair.names
        ]

    def _total(self) -> int:
        rows = []
        for cursor in self._cursors:
            cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Com_admin_commands')")
            rows += cursor.fetchall()
        return sum(int(value) for _, value in rows)

    def __call__(self, run: Callable[[], object]) -> int:
        """Return how many statements and pings the servers get while something runs."""
        before = self._total()
        run()
        return self._total() - before - len(self._cursors)

    def wait_caught_up(self) -> None:
        master, slave = self._cursors
        master.execute(self._dialect.position)
        slave.execute(self._dialect.wait, (master.fetchall()[0][0], 10))


class Trips(RoundTrips):
    """Counts round trips to servers without such counters. The board connects to both servers through proxies."""

    visits = 2

    def __init__(self, board: Board, stack: ExitStack) -> None:
        self._pair = board.pair
        servers = (board.pair.master, *board.pair.slaves)
        proxies = [stack.enter_context(Proxy(server["port"])) for server in servers]
        # psycopg takes one more round trip to prepare what it runs for the sixth time.
        changed = [{"port": proxy.port, "prepare_threshold": None} for proxy in proxies]
        master, *slaves = ({**server, **some} for server, some in zip(servers, changed, strict=True))
        board.db = stack.enter_context(replswitch.connect(master, slaves, driver=board.driver))
        super().__init__(*proxies)

    def wait_caught_up(self) -> None:
        self._pair.wait_caught_up()


@pytest.fixture
def asked(board: Board) -> Iterator[Counter | Trips]:
    with ExitStack() as stack:
        yield Counter(board.pair, stack) if isinstance(board.pair, ServerPair) else Trips(board, stack)


@pytest.fixture
def warm(board: Board, asked: Counter | Trips, browser_of: type[Browser]) -> None:
    """The links are open, and what is asked once for each of them was asked."""
    browser_of(board.application).send()
    browser_of(board.application).post("n=1000")
    while asked(lambda: None):  # what the fixtures have closed is still being counted
        pass


@pytest.mark.usefixtures("warm")
def test_p1_requests_cause_no_unnecessary_position_query(
    board: Board, asked: Counter | Trips, browser_of: type[Browser]
) -> None:
    """The application's own statement is taken off."""
    asks = int(board.driver == "mysqlclient")  # the position query; PyMySQL gets the position with the result
    for number in range(2, 2 + asked.visits):
        browser = browser_of(board.application)
        assert asked(browser.send) - 1 == 0
        assert asked(partial(browser.send, "POST", f"n={number}")) - 1 == asks
        asked.wait_caught_up()
        assert asked(browser.send) - 1 == 1  # how far the slave is
        assert [asked(browser.send) - 1 for _ in range(3)] == [0, 0, 0]
        other = browser_of(board.application, dict(browser.jar))  # likewise what another visitor must see
        assert asked(other.send) - 1 == 0


@pytest.mark.usefixtures("warm")
def test_a_slave_that_lags_is_asked_its_position_once_a_request(
    board: Board, asked: Counter | Trips, browser_of: type[Browser]
) -> None:
    browser = browser_of(board.application)
    board.pair.stop_slave()
    browser.send("POST", "n=2")
    while asked(lambda: None):  # likewise what has stopped it
        pass
    browser.send()  # opens a read-only link to the master, so that no position query is needed
    while asked(lambda: None):
        pass
    assert [asked(browser.send) - 1 for _ in range(asked.visits)] == [1] * asked.visits


def test_a_request_compares_merges_and_writes_its_marker_once(
    board: Board, browser_of: type[Browser], monkeypatch: pytest.MonkeyPatch, asked: Counter | Trips
) -> None:
    visitor, once = browser_of(board.application), Once(monkeypatch)
    assert once.of(visitor.send, "POST", "n=2") == FIRST_WRITE
    asked.wait_caught_up()
    visitor.send()  # which asks the slave
    assert once.of(visitor.send).items() >= KNOWN_SLAVE.items()
    assert once.of(visitor.send, "POST", "n=3") == NEXT_WRITE
