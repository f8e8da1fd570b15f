"""A GET that reads and then writes in a transaction runs once more, on the master (R5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from flask import Flask, abort, g, got_request_exception, stream_with_context
from flask.sessions import SecureCookieSessionInterface
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tests.test_flask.test_alchemy import config_of

from flask_replswitch import ReplSwitch
from replswitch import SlaveWriteError, stats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.test_flask.conftest import Board, NewApp, Visitor

    from replswitch.testing import ReplicatedPair


class Base(DeclarativeBase):
    """The base class, as in Flask-SQLAlchemy's manual."""


db = SQLAlchemy(model_class=Base)


class Page(db.Model):  # type: ignore[name-defined,misc]  # Flask-SQLAlchemy makes this class at run time
    """A page that counts its views."""

    __tablename__ = "replay_page"
    id: Mapped[int] = mapped_column(primary_key=True)
    views: Mapped[int]


def view_page(page: int = 1) -> str:
    """Count a view of a page: read, then write."""
    found = db.get_or_404(Page, page)
    found.views += 1
    db.session.commit()
    return str(found.views)


@pytest.fixture
def app(new_app: NewApp, replicated_pair: ReplicatedPair) -> Iterator[Flask]:
    """An application with one page, whose number of views is 0."""
    app = new_app(**config_of(replicated_pair))
    db.init_app(app)
    ReplSwitch(app)
    with app.app_context():
        db.drop_all()
        db.create_all()
        db.session.add(Page(id=1, views=0))
        db.session.commit()
    replicated_pair.wait_caught_up()
    yield app
    with app.app_context():
        db.session.remove()
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def new_visitor(app: Flask) -> Callable[[], Visitor]:
    """Return a function that makes visitors of the application."""
    from tests.test_flask.conftest import Visitor as Made  # noqa: PLC0415 - pytest imports a conftest in its own way

    return lambda: Made(app)


def views() -> int:
    """Return the number of views of the page on the master."""
    with db.engine.connect() as connection:
        return connection.execute(sa.text("SELECT views FROM replay_page")).scalar_one()  # type: ignore[no-any-return]


def test_r5_a_view_counter_runs_again_and_counts_once(app: Flask, new_visitor: Callable[[], Visitor]) -> None:
    app.add_url_rule("/page/<int:page>", "page", view_page)
    before = sum(stats()["replay"].values())
    page = new_visitor().get("/page/1")
    assert (page.status, page.text, page.told.endswith("reason=replay"), len(page.markers)) == (200, "1", True, 1)
    page = new_visitor().get("/page/1")
    assert (page.text, "reason=learned" in page.told) == ("2", True)
    assert new_visitor().get("/page/2").sides == ["master"], "the rule is remembered, and not the path"
    assert sum(stats()["replay"].values()) == before + 1
    with app.app_context():
        assert views() == 2


def test_r5_a_write_in_before_request_causes_the_replay(app: Flask, new_visitor: Callable[[], Visitor]) -> None:
    app.before_request(lambda: view_page() and None)
    app.add_url_rule("/", "index", lambda: str(db.session.get_one(Page, 1).views))
    assert new_visitor().get("/").text == "1"
    assert new_visitor().get("/").text == "2"


def test_r5_a_write_in_an_error_handler_causes_the_replay(app: Flask, new_visitor: Callable[[], Visitor]) -> None:
    app.register_error_handler(404, lambda error: (view_page(), 404))
    app.add_url_rule("/", "index", lambda: abort(404))
    assert (new_visitor().get("/").text, new_visitor().get("/").text) == ("1", "2")
    assert new_visitor().get("/nowhere").text == "3"


@pytest.mark.parametrize("where", ["in a preprocessor of URL values", "when the session is opened"])
def test_r5_a_transaction_that_has_read_before_the_rule_is_known_loses_no_update(
    app: Flask, new_visitor: Callable[[], Visitor], replicated_pair: ReplicatedPair, where: str
) -> None:
    def read(*_: object) -> None:
        g.page = db.session.get_one(Page, 1)

    class Sessions(SecureCookieSessionInterface):
        def open_session(self, *arguments: Any) -> Any:
            read()
            return super().open_session(*arguments)

    @app.get("/")
    def index() -> str:
        g.page.views += 1
        db.session.commit()
        return str(g.page.views)

    if where == "when the session is opened":
        app.session_interface = Sessions()
    else:
        app.url_value_preprocessor(read)
    replicated_pair.lag = 60
    assert [new_visitor().get("/").text for _ in range(3)] == ["1", "2", "3"]
    with app.app_context():
        assert views() == 3


@pytest.mark.parametrize("caught", [Exception, BaseException])
def test_r5_a_slave_write_error_that_the_application_catches_causes_the_replay(
    app: Flask, new_visitor: Callable[[], Visitor], caught: type[BaseException]
) -> None:
    @app.get("/")
    def index() -> str:
        with suppress(caught):
            return view_page()
        db.session.rollback()
        return "sorry"

    assert new_visitor().get("/").text == "1"


def test_r5_no_error_of_the_first_try_is_reported(app: Flask, new_visitor: Callable[[], Visitor]) -> None:
    errors: list[Any] = []

    @app.errorhandler(Exception)
    def report(error: Exception) -> tuple[str, int]:
        errors.append(error)
        return "failed", 500

    app.add_url_rule("/", "index", view_page)
    with got_request_exception.connected_to(lambda *_, **said: errors.append(said), app):
        assert new_visitor().get("/").text == "1"
    assert errors == []


def test_r5_a_stream_that_writes_is_not_run_again_and_begins_on_the_master_the_next_time(
    app: Flask, new_visitor: Callable[[], Visitor]
) -> None:
    @app.get("/")
    def index() -> Any:
        def pieces() -> Iterator[str]:
            yield "views: "
            yield view_page()

        return stream_with_context(pieces()), 200

    with pytest.raises(SlaveWriteError):
        new_visitor().get("/")
    assert new_visitor().get("/").text == "views: 1"


def test_r5_a_stream_that_writes_before_its_first_chunk_runs_again(
    app: Flask, new_visitor: Callable[[], Visitor]
) -> None:
    @app.get("/")
    def index() -> Any:
        def pieces() -> Iterator[str]:
            yield view_page()

        return stream_with_context(pieces()), 200

    assert new_visitor().get("/").text == "1"


@pytest.mark.parametrize("commits", ["connection", "begin", "session"])
def test_r5_a_view_that_has_committed_on_another_engine_does_not_commit_twice(
    app: Flask, new_visitor: Callable[[], Visitor], tmp_path: Path, commits: str
) -> None:
    other = sa.create_engine(f"sqlite:///{tmp_path / 'other'}")
    insert = sa.text("INSERT INTO visit VALUES (1)")
    with other.begin() as connection:
        connection.execute(sa.text("CREATE TABLE visit (number INTEGER)"))

    @app.get("/")
    def index() -> str:
        if commits == "connection":
            with other.connect() as connection:
                connection.execute(insert)
                connection.commit()
        elif commits == "begin":
            with other.begin() as connection:
                connection.execute(insert)
        else:
            with Session(other) as session:
                session.execute(insert)
                session.commit()
        return view_page()

    with pytest.raises(SlaveWriteError):
        new_visitor().get("/")
    with other.connect() as connection:
        assert connection.execute(sa.text("SELECT COUNT(*) FROM visit")).scalar_one() == 1
    assert new_visitor().get("/").text == "1"
    other.dispose()


def test_r5_an_uncommitted_write_on_another_engine_prevents_no_replay(
    app: Flask, new_visitor: Callable[[], Visitor]
) -> None:
    other = sa.create_engine("sqlite://")
    with other.begin() as connection:
        connection.execute(sa.text("CREATE TABLE visit (number INTEGER)"))

    @app.get("/")
    def index() -> str:
        with other.connect() as connection, connection.begin_nested():
            connection.execute(sa.text("INSERT INTO visit VALUES (1)"))
        return view_page()

    assert new_visitor().get("/").text == "1"
    other.dispose()


def test_r5_no_replay_with_replay_off(new_app: NewApp, board: Board) -> None:
    app = new_app(REPLSWITCH_REPLAY=False)
    ReplSwitch(app)

    @app.get("/")
    def index() -> Any:
        board.db.begin()
        try:
            board.numbers()
            board.write(2)
        finally:
            board.db.rollback()

    with pytest.raises(SlaveWriteError):
        board.visitor(app).get("/")
    assert board.on("master") == "1"


def test_r5_an_application_inside_the_application_runs_again_alone(board: Board, new_app: NewApp) -> None:
    inner = new_app("inner", REPLSWITCH_COOKIE_NAME="inner")
    ReplSwitch(inner)
    calls: list[str] = []

    @inner.get("/")
    def count() -> str:
        calls.append("inner")
        board.db.begin()
        board.numbers()
        board.write(2)
        board.db.commit()
        return board.numbers()

    @board.app.get("/outer")
    def outer() -> str:
        calls.append("outer")
        return f"{inner.test_client().get('/').text};{board.numbers()}"

    board.pair.lag = 60
    assert board.visitor().get("/outer").text == "1 2;1 2"
    assert calls == ["outer", "inner", "inner"]
