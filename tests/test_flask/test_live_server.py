"""Flask under a threaded server, with real clients in parallel, on a pair that really lags."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from flask import request
from tests.test_wsgi.test_live_server import CLIENTS, LASTS, Client, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.typing import ResponseReturnValue
    from tests.test_flask.conftest import Board


def test_no_client_of_a_live_server_misses_its_own_write(board: Board) -> None:
    board.pair.lag = 1
    board.app.config.update(TESTING=False)

    def view() -> ResponseReturnValue:
        if "stream" not in request.args:
            served_by: ResponseReturnValue = board.serve()
            return served_by

        def pieces() -> Iterator[str]:
            yield from (f"{number} " for number in board.numbers().split())

        return pieces()

    board.app.view_functions["board"] = view
    numbers = itertools.count(2)
    with served(board.app) as port:
        until = time.monotonic() + LASTS
        clients = [Client(port, numbers, until) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert [client.error for client in clients] == [None] * CLIENTS
    assert [client.missed for client in clients] == [[]] * CLIENTS
    assert {side for client in clients for side in client.plain} == {"slave"}
    assert len(board.on("slave").split()) < len(board.on("master").split()), "the slave did not lag"
    assert min(client.pages for client in clients) > 3
