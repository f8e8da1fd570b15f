"""Sessions under the middleware, while the slave lags: own writes are seen, and the slave serves all other reads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from sqlalchemy import create_engine, func, insert, select, text
from sqlalchemy.orm import scoped_session
from webob import Request, Response

from replswitch import MASTER, SLAVE
from replswitch.decorators import use_master
from replswitch.testing import ReplicatedPair
from replswitch.wsgi import ReplicationMiddleware

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

SECRET = "of the tests"


class Board:
    """An application: GET lists the messages, POST adds one; in other ways on other paths."""

    def __init__(self, shop: Any) -> None:
        self.shop = shop
        self.session = scoped_session(shop.Session)
        self.wsgi = ReplicationMiddleware(self.answer, secret=SECRET, debug_header=True)

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        if request.path == "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return self.stream()
        try:
            if request.method == "POST":
                getattr(self, request.path.strip("/") or "orm")(request.params["body"])
            body = "\n".join(self.session.scalars(select(self.shop.Message.body).order_by(self.shop.Message.id)))
            response = Response(body, content_type="text/plain")
            if request.path == "/away":
                response = Response(status=303, location="/")
            return response(environ, start_response)
        finally:
            self.session.remove()

    def stream(self) -> Iterable[bytes]:
        with self.shop.Session() as session:
            for body in session.scalars(select(self.shop.Message.body)):
                yield body.encode()

    def orm(self, body: str) -> None:
        self.session.add(self.shop.Message(body=body))
        self.session.commit()

    away = json = orm

    def core(self, body: str) -> None:
        with self.shop.master.begin() as connection:
            connection.execute(insert(self.shop.Message).values(body=body))

    def threads(self, body: str) -> None:
        def work() -> None:
            with self.shop.Session() as session:
                session.add(self.shop.Message(body=body))
                session.commit()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def failing(self, body: str) -> None:
        self.orm(body)
        raise ZeroDivisionError

    def reading(self, body: str) -> None:
        self.session.scalar(select(func.count(self.shop.Message.id)))
        self.session.commit()


class Answer(NamedTuple):
    text: str
    side: str


class Visitor:
    """A browser: it keeps its cookies."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.cookies: dict[str, str] = {}

    def ask(self, path: str = "/", **form: str) -> Answer:
        request = Request.blank(path, POST=form or None)
        request.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = request.get_response(self.application)
        for header in response.headers.getall("Set-Cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self.cookies[name] = value
        return Answer(response.text, response.headers.get("Replswitch", "").partition(";")[0])


@pytest.fixture
def board(shop: Any) -> Board:
    return Board(shop)


@pytest.fixture
def visitor(board: Board) -> Visitor:
    return Visitor(board.wsgi)


def test_r1_a_get_is_read_from_a_slave(visitor: Visitor) -> None:
    assert visitor.ask().side == SLAVE
    assert not visitor.cookies


@pytest.mark.parametrize("path", ["/", "/away", "/json", "/core", "/threads"])
def test_m1_a_get_after_a_post_sees_its_write(
    visitor: Visitor, board: Board, replicated_pair: ReplicatedPair, path: str
) -> None:
    replicated_pair.stop_slave()
    answer = visitor.ask(path, body="hello")
    assert answer.side == MASTER
    for _ in range(3):
        answer = visitor.ask()
        assert (answer.text, answer.side) == ("hello", MASTER)
    other = Visitor(board.wsgi).ask()
    assert (other.text, other.side) == ("", SLAVE)
    replicated_pair.start_slave()
    replicated_pair.wait_caught_up()
    answer = visitor.ask()
    assert (answer.text, answer.side) == ("hello", SLAVE)


def test_m6_a_post_that_writes_nothing_sets_no_cookie(visitor: Visitor) -> None:
    visitor.ask("/reading", body="hello")
    assert not visitor.cookies


def test_a_post_that_fails_leaves_nothing_open(visitor: Visitor, board: Board) -> None:
    with pytest.raises(ZeroDivisionError):
        visitor.ask("/failing", body="hello")
    assert [engine.pool.checkedout() for engine in board.shop.engines] == [0, 0, 0]


def test_s9_a_streamed_body_has_the_state_of_its_request(visitor: Visitor, board: Board) -> None:
    visitor.ask(body="hello")
    board.shop.took()
    visitor.cookies.clear()
    visitor.ask("/stream")
    assert board.shop.took() == [SLAVE]


def test_a_forced_state_inside_a_request_outlives_its_commits(shop: Any, replicated_pair: ReplicatedPair) -> None:
    """advanced-alchemy 1.12 drops it."""
    replicated_pair.stop_slave()
    counts: list[int] = []

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with shop.Session() as session, use_master():
            for _ in range(2):
                session.add(shop.Message(body="hello"))
                session.commit()
                counts.append(session.scalar(select(func.count(shop.Message.id))))
        return Response("fine")(environ, start_response)

    Visitor(ReplicationMiddleware(application, secret=SECRET)).ask()
    assert counts == [1, 2]
    assert set(shop.took()) == {MASTER}


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO message (body) VALUES ('new')",
        "INSERT INTO message (body) WITH fresh AS (SELECT 'new' AS body) SELECT body FROM fresh",
    ],
)
def test_a_write_as_text_in_a_get_is_not_lost_on_the_slave(
    shop: Any, replicated_pair: ReplicatedPair, sql: str
) -> None:
    """advanced-alchemy 1.12 sends it to the slave, which may even take it."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with shop.Session() as session:
            session.execute(text(sql))
            session.commit()
        return Response("fine")(environ, start_response)

    visitor = Visitor(ReplicationMiddleware(application, secret=SECRET))
    assert visitor.ask().text == "fine"
    assert visitor.cookies
    engine = create_engine(shop.master.url)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count(shop.Message.id))) == 1
    engine.dispose()
    replicated_pair.wait_caught_up()


def test_parallel_visitors_see_their_own_writes_while_the_slave_lags(
    board: Board, replicated_pair: ReplicatedPair
) -> None:
    """Each visitor sees all own writes, for any lag."""
    replicated_pair.lag = 1
    missed: list[str] = []
    sides: list[str] = []

    def visit(number: int) -> None:
        visitor, chance = Visitor(board.wsgi), random.Random(number)
        mine: list[str] = []
        for turn in range(12):
            if chance.random() < 0.3:
                mine.append(f"{number}-{turn}")
                visitor.ask(body=mine[-1])
            answer = visitor.ask()
            sides.append(answer.side)
            missed.extend(set(mine) - set(answer.text.split("\n")))

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missed
    assert {MASTER, SLAVE} == set(sides)
