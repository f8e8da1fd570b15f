"""The shops in examples/shop_django and examples/shop_flask, used by visitors and by an operator."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from tests.test_examples.running import Answer, Browser, database_word, end, example, temporary_folder, wait_for_address


class Shop(NamedTuple):
    """The differences between the two shops.

    Attributes:
        slash: the end of each path.
        report: the line in the report that names each database, before its servers.
        port_in_use: the error message for a port that is in use.
    """

    name: str
    slash: str
    report: dict[str, str]
    port_in_use: str


SHOPS = {
    "django": Shop(
        "shop_django",
        "/",
        {
            "sqlite": "default (django_replswitch.backends.sqlite3)",
            "mariadb": "default (django_replswitch.backends.mysql)",
        },
        "Error: That port is already in use.",
    ),
    "flask": Shop(
        "shop_flask", "", {"sqlite": "main", "mariadb": "shop", "postgresql": "shop"}, "is in use by another program"
    ),
}


class Page(Answer):
    @property
    def stock(self) -> dict[str, int]:
        cells = re.findall(r'<td>([^<]+)</td>\s*<td class="number">(\d+)</td>', self.text)
        return {name: int(number) for name, number in cells}

    @property
    def queries(self) -> list[tuple[str, str]]:
        """The side and the SQL of each query of the latest request on the page."""
        latest = self.text.partition('<ol id="requests">')[2].partition("</ul>")[0]
        return re.findall(r'class="badge (\w+)">\1</span> [^<]+<code>\s*([^<]*)</code>', latest)

    @property
    def sides(self) -> set[str]:
        """The sides of the queries that read a table. Queries for a slave's position read no table."""
        return {side for side, sql in self.queries if "FROM" in sql}


class Visitor(Browser[Page]):
    def __init__(self, address: str, shop: Shop) -> None:
        super().__init__(address, Page)
        self.shop = shop
        self.get()

    def buy(self, number: int) -> Page:
        return self.ask("POST", f"/buy/{number}{self.shop.slash}", {})

    def stock(self, number: int) -> Page:
        return self.get(f"/stock/{number}{self.shop.slash}")


@contextmanager
def running(shop: Shop, database: str) -> Iterator[str]:
    """Run a shop and yield its address. At the end, stop it with Ctrl-C and check that it leaves no files."""
    with temporary_folder() as folder:
        with example(shop.name, "--database", database, "--port", "0", folder=folder) as process:
            address, lines = wait_for_address(process)
            assert database_word(database, lines[:1])
            assert lines[1].startswith(shop.report[database])
            assert list(folder.iterdir())
            yield address
            code, errors = end(process, signal.SIGINT)
        assert code == 0
        assert "Traceback" not in errors
        assert not re.search(r"^WARNINGS?:", errors, re.MULTILINE)  # Django's system checks find nothing
        assert "moved to the master" not in errors


@pytest.fixture(
    scope="module", params=[f"{name}-{database}" for name, shop in SHOPS.items() for database in shop.report]
)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Shop, str]]:
    """A shop that is shared by all tests, and its address."""
    shop, _, database = request.param.partition("-")
    if database != "sqlite":
        request.getfixturevalue(f"{database}_pair_of_session")  # skips the test if it is not installed, except in CI
    with running(SHOPS[shop], database) as address:
        yield SHOPS[shop], address


@pytest.fixture
def shop(served: tuple[Shop, str]) -> Shop:
    return served[0]


@pytest.fixture
def address(served: tuple[Shop, str]) -> str:
    return served[1]


@pytest.fixture
def visitor(address: str, shop: Shop) -> Visitor:
    return Visitor(address, shop)


def articles(page: Page) -> set[str]:
    """The sides of the queries for articles."""
    return {side for side, sql in page.queries if "FROM" in sql and "session" not in sql}


def test_m1_a_buyer_sees_the_purchase_while_others_still_read_the_slave(
    visitor: Visitor, address: str, shop: Shop
) -> None:
    before = int(visitor.stock(3).text.partition(" ")[0])
    while (page := visitor.get()).stock["Sugar bowl"] != before:  # the slave lacks a purchase of another test
        time.sleep(0.2)
    assert page.sides == {"slave"}
    assert "reason=method" in page.decided

    answer = visitor.buy(3)
    assert (answer.status, answer.location) == (302, "/")
    page = visitor.get()
    assert page.stock["Sugar bowl"] == before - 1
    assert "Your basket: Sugar bowl." in page.text
    assert page.sides == {"master"}
    assert "reason=marker" in page.decided

    other = Visitor(address, shop)
    assert other.get().stock["Sugar bowl"] == before
    deadline = time.monotonic() + 60
    while other.get().stock["Sugar bowl"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert other.get().sides == {"slave"}
    while articles(page := visitor.get()) != {"slave"}:  # SQLite's slave shows a row a moment before its position
        assert time.monotonic() < deadline
    assert page.stock["Sugar bowl"] == before - 1


@pytest.mark.parametrize("served", ["django-sqlite", "django-mariadb"], indirect=True)
def test_a_django_session_is_read_on_the_master_and_the_articles_on_the_slave(visitor: Visitor) -> None:
    visitor.buy(3)
    visitor.forget_markers()
    sides = {"session" if "session" in sql else "article": db for db, sql in visitor.get().queries if "FROM" in sql}
    assert sides == {"session": "master", "article": "slave"}


def test_r3_a_post_with_use_slave_reads_from_the_slave(visitor: Visitor) -> None:
    page = visitor.ask("POST", f"/search{visitor.shop.slash}", {"wanted": "tea"})
    assert list(page.stock) == ["Teapot"]
    assert page.sides == {"slave"}


def test_r3_a_get_with_use_master_reads_from_the_master(visitor: Visitor) -> None:
    page = visitor.stock(1)
    assert page.text == "12 of Teapot\n"
    assert page.decided.startswith("master;")
    assert page.decided.endswith("reason=use_master")


def test_an_article_out_of_stock_cannot_be_bought(visitor: Visitor) -> None:
    for _ in range(2):
        assert visitor.buy(4).status == 302
    page = visitor.get()
    assert page.stock["The last spoon"] == 0
    assert "Your basket: The last spoon." in page.text


def test_twenty_purchases_by_four_threads_all_count(visitor: Visitor) -> None:
    before = visitor.stock(2).text

    def buy(_: int) -> list[int]:
        return [visitor.buy(2).status for _ in range(5)]

    with ThreadPoolExecutor(4) as visitors:
        assert [status for each in visitors.map(buy, range(4)) for status in each] == [302] * 20
    assert before == "48 of Cup\n"
    assert visitor.stock(2).text == "28 of Cup\n"


def test_an_unknown_article_is_not_found(visitor: Visitor) -> None:
    assert visitor.buy(99).status == 404
    assert visitor.stock(99).status == 404


def test_a_port_in_use_is_reported(address: str, shop: Shop) -> None:
    with example(shop.name, "--database", "sqlite", "--port", str(urlsplit(address).port)) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert shop.port_in_use in errors
