"""How many questions of ours the servers get for each request, by their own counters."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from replswitch.testing import MariaDBPair
from replswitch.testing.sessions import SessionPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.test_wsgi.conftest import Board, Browser

    Count = Callable[[Callable[[], object]], int]

pytestmark = pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True
)

VISITS = 5


@pytest.fixture
def asked(board: Board) -> Iterator[Count]:
    """Tells how many statements and pings both servers get while something runs."""
    assert isinstance(board.pair, SessionPair)
    with ExitStack() as stack:
        cursors = [
            stack.enter_context(stack.enter_context(closing(board.pair.admin(server))).cursor())
            for server in board.pair.names
        ]

        def total() -> int:
            rows = []
            for cursor in cursors:
                cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Com_admin_commands')")
                rows += cursor.fetchall()
            return sum(int(value) for _, value in rows)

        def during(run: Callable[[], object]) -> int:
            before = total()
            run()
            return total() - before - len(cursors)

        yield during


@pytest.fixture
def warm(board: Board, asked: Count, browser_of: type[Browser]) -> None:
    """The links are open, and what is asked once for each of them was asked."""
    browser_of(board.application).send()
    browser_of(board.application).post("n=1000")
    assert asked(lambda: None) == 0


@pytest.mark.usefixtures("warm")
def test_each_request_is_asked_about_no_more_than_it_must(
    board: Board, asked: Count, browser_of: type[Browser]
) -> None:
    """The application's own statement is taken off."""
    asks = int(board.driver == "mysqlclient")  # what was written; PyMySQL hears it in the answer
    for number in range(2, 2 + VISITS):
        browser = browser_of(board.application)
        assert asked(browser.send) - 1 == 0
        assert asked(partial(browser.send, "POST", f"n={number}")) - 1 == asks
        board.pair.wait_caught_up()
        assert asked(browser.send) - 1 == 1  # how far the slave is
        assert [asked(browser.send) - 1 for _ in range(3)] == [0, 0, 0]
        other = browser_of(board.application, dict(browser.jar))  # likewise what another visitor must see
        assert asked(other.send) - 1 == 0


@pytest.mark.usefixtures("warm")
def test_a_slave_that_is_behind_is_asked_once_for_each_page(
    board: Board, asked: Count, browser_of: type[Browser]
) -> None:
    browser = browser_of(board.application)
    board.pair.stop_slave()
    browser.send("POST", "n=2")
    # With mysqlclient on MariaDB the page, which the master serves, may have written, too (INSERT … RETURNING).
    asks = int(board.driver == "mysqlclient" and isinstance(board.pair, MariaDBPair))
    pages = [asked(browser.send) - 1 for _ in range(VISITS)]
    assert pages == [1 + asks] * VISITS
