"""What is in a marker: each position is dated by itself (M2), and there is nothing else in it (M6)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import pytest
from itsdangerous import URLSafeSerializer

from replswitch import carry
from replswitch.decorators import use_master
from replswitch.positions import read, write
from replswitch.request.marker import Marker, MarkerSigner

if TYPE_CHECKING:
    from tests.test_wsgi.conftest import Board, Browser

NEVER: Final = {
    "mariadb": "mariadb:0-1-999999999",
    "mysql": "mysql:3e11fa47-71ca-11e1-9e33-c80aa9429562:1",
    "postgresql": "postgresql:1:FFFFFFFF/0",
    "sqlite": "sqlite:9999999999999999999",
    "toy": "toy:999999999",
}
"""Positions that no server of a pair reaches."""


def test_m2_a_position_that_no_slave_reaches_expires_however_often_its_visitor_writes(
    board: Board, browser_of: type[Browser], secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with use_master():
        board.write(0)
        ((name, written),) = json.loads(carry())["p"].items()
    board.pair.wait_caught_up()
    began = time.time()
    never = Marker(positions={name: read(NEVER[written.partition(":")[0]])}, placed_at=began - 300)
    browser = browser_of(board.behind(board.serve, position_max_age=600))
    browser.jar["just_updated"] = MarkerSigner(secret).write(never), float("inf")
    assert browser.send().side == "master"
    assert browser.post("n=2").body == b"0 1 2"
    monkeypatch.setattr("time.time", lambda: began + 301)
    assert browser.post("n=3").body == b"0 1 2 3"
    board.pair.wait_caught_up()
    page = browser.send()
    assert page.body == b"0 1 2 3"
    assert page.side == "slave"


def test_m6_the_cookie_has_dates_positions_and_the_digest_of_an_address_and_nothing_else(
    board: Board, browser_of: type[Browser]
) -> None:
    (cookie,) = browser_of(board.application).send("POST", "n=2").cookies
    token = cookie.partition("=")[2].partition(";")[0]
    payload = URLSafeSerializer("any").load_payload(token.rpartition(".")[0].encode())  # as a visitor can
    assert set(payload) == {"at", "p"}
    ((name, written),) = payload["p"].items()
    assert name == board.db.database.set_name
    assert written == str(write(read(written)))
    for setting, value in board.pair.master.items():
        assert setting == "port" or str(value) not in str(payload)
