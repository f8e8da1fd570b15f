"""The shop in examples/shop_fastapi, used by visitors and by an operator."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.eventually import eventually
from tests.test_asgi.conftest import required
from tests.test_examples.running import Answer, Browser, database_word, end, example, temporary_folder, wait_for_address

for module in ("fastapi", "greenlet", "uvicorn", "websockets"):
    required(module)
from websockets.sync.client import connect  # noqa: E402 - not without the package


class Page(Answer):
    @property
    def value(self) -> Any:
        return json.loads(self.text)

    @property
    def names(self) -> list[str]:
        return [article["name"] for article in self.value]

    @property
    def choice(self) -> tuple[str, str]:
        """The side and the reason in the debug header."""
        side, _, reason = self.decided.split("; ")
        return side, reason.removeprefix("reason=")


class Visitor(Browser[Page]):
    def __init__(self, address: str) -> None:
        super().__init__(address, Page)

    def add(self, name: str, stock: int = 3) -> Page:
        return self.ask("POST", "/articles", value={"name": name, "stock": stock})

    def names(self) -> list[str]:
        return self.get("/articles").names

    def stock(self, name: str) -> int | None:
        """Ask in a websocket."""
        with connect(f"ws://{self.server}/stock", additional_headers={"Cookie": self.cookie}) as websocket:
            websocket.send(name)
            found: int | None = json.loads(websocket.recv(timeout=10))
            return found


ON_SQLITE = "aiosqlite-sqlite"


@pytest.fixture(scope="module", params=[ON_SQLITE, "aiomysql-mariadb", "psycopg-postgresql"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a shop that is shared by all tests. In the end, it must stop at Ctrl-C and leave no files."""
    driver, _, database = request.param.partition("-")
    required(driver)
    request.getfixturevalue(f"{database}_pair_of_session")  # skips the test if it is not installed, except in CI
    with temporary_folder() as folder:
        with example("shop_fastapi", "--database", database, "--port", "0", folder=folder) as process:
            found, lines = wait_for_address(process)
            assert database_word(database, lines[:1])
            yield found
            code, errors = end(process, signal.SIGINT)
        assert (code, errors) == (0, "")


@pytest.fixture
def visitor(address: str) -> Visitor:
    return Visitor(address)


def test_m1_a_visitor_sees_the_new_article_at_once_and_others_still_read_the_slave(
    visitor: Visitor, address: str
) -> None:
    page = visitor.get("/articles")
    assert ("Tray" in page.names, page.choice) == (False, ("slave", "method"))
    added = visitor.add("Tray")
    assert (added.status, added.value["name"], added.choice) == (201, "Tray", ("master", "method"))
    page = visitor.get("/articles")
    assert ("Tray" in page.names, page.choice) == (True, ("master", "marker"))
    server = visitor.get("/server").value
    assert server["side"] == "master"

    other = Visitor(address)
    page = other.get("/articles")
    assert ("Tray" in page.names, page.choice) == (False, ("slave", "method"))
    others = other.get("/server").value
    assert (others["side"], others["address"] == server["address"]) == ("slave", False)

    eventually(lambda: "Tray" in other.names(), every=0.1)
    eventually(lambda: visitor.get("/articles").choice == ("slave", "method"), every=0.1)
    assert "Tray" in visitor.names()


def test_m1_a_websocket_sees_what_its_visitor_has_added_and_others_read_the_slave(
    visitor: Visitor, address: str
) -> None:
    visitor.add("Jug", 7)
    assert visitor.stock("Jug") == 7
    assert Visitor(address).stock("Jug") is None


def test_a_visitor_who_leaves_before_the_answer_of_a_websocket_is_no_error(visitor: Visitor) -> None:
    """The fixture `address` looks for errors of the shop."""
    for _ in range(5):
        with connect(f"ws://{visitor.server}/stock") as websocket:
            websocket.send("Cup")
    assert visitor.stock("Cup") == 48


def test_r3_a_post_with_use_slave_reads_from_the_slave(visitor: Visitor) -> None:
    page = visitor.ask("POST", "/search", value={"name": "teap"})
    assert (page.names, page.choice) == (["Teapot"], ("slave", "use_slave"))


def test_a_view_is_counted_after_the_response_and_makes_no_marker(visitor: Visitor) -> None:
    article = f"/articles/{visitor.add('Mug').value['id']}"
    cookies = visitor.cookies
    page = visitor.get(article)
    assert (page.value["views"], page.choice) == (0, ("master", "marker"))
    eventually(lambda: visitor.get(article).value["views"] > 0, every=0.1)
    assert visitor.cookies == cookies


@pytest.mark.parametrize("address", [ON_SQLITE], indirect=True)
def test_an_unknown_article_and_a_refused_form_add_nothing_and_set_no_cookie(visitor: Visitor) -> None:
    assert visitor.get("/articles/99").status == 404
    assert visitor.add("Bowl", -1).status == 422
    assert visitor.cookies == {}
    assert "Bowl" not in visitor.names()


@pytest.mark.parametrize("address", [ON_SQLITE], indirect=True)
def test_a_port_in_use_is_reported(address: str) -> None:
    port = str(urlsplit(address).port)
    with example("shop_fastapi", "--database", "sqlite", "--port", port) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"error: cannot serve on port {port}: Address already in use\n"


def test_the_help_names_the_options() -> None:
    with example("shop_fastapi", "--help") as process:
        output, _ = process.communicate(timeout=60)
    assert all(option in output for option in ("FastAPI", "--port", "--database"))
