"""A visitor who wrote before another server became the master, and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import replswitch
from replswitch.testing.servers import ServerPair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Served
    from tests.test_wsgi.conftest import Board, Browser


@pytest.fixture(autouse=True)
def roles(board: Board) -> Iterator[None]:
    """Others, who know the servers by their addresses, find them as they were."""
    yield
    board.pair.reset()


@pytest.mark.parametrize("served", ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"], indirect=True)
def test_writes_before_and_after_a_promotion_are_seen(board: Board, served: Served, browser_of: type[Browser]) -> None:
    pair = board.pair
    assert isinstance(pair, ServerPair)
    early, late = browser_of(board.application), browser_of(board.application)
    pair.stop_slave()
    assert early.post("n=2").body == b"1 2"
    pair.promote("slave")
    # The application is started again, with the new roles in its settings; visitors keep their cookies.
    with replswitch.connect(master=pair.master, slaves=pair.slaves, driver=served.driver) as board.db:
        page = early.send()
        assert (page.body, page.side) == (b"1 2", "slave")
        pair.stop_slave("master")
        late.jar.update(early.jar)
        page = late.post("n=3")
        assert (page.body, page.side) == (b"1 2 3", "master")
        page = early.send()
        assert (page.body, page.side) == (b"1 2", "slave")
        pair.start_slave("master")
        pair.wait_caught_up()
        page = late.send()
        assert (page.body, page.side) == (b"1 2 3", "slave")
