"""What the first try of a request has done outside the database that refuses its write is not done twice (R5)."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.views.decorators.cache import cache_page
from tests.test_django.project.models import Tag
from tests.test_django.requests.board import MIDDLEWARE, SESSIONS, answer, shown, through_asgi, through_wsgi, write
from tests.test_django.requests.test_replay import count, counter

from django_replswitch.decorators import use_master
from replswitch import SlaveWriteError, unrecorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.test_django.requests.board import Page, Site
    from tests.test_django.requests.conftest import Visitors

# The engines whose sessions are rows like any others for replswitch.
ROWS = {"django.contrib.sessions.backends.db", "django.contrib.sessions.backends.cached_db"}

DOORS = pytest.mark.parametrize("door", [through_wsgi, through_asgi], ids=["wsgi", "asgi"])


class TestSessions:
    """A session that a view saves by hand."""

    ENGINES = pytest.mark.parametrize(
        "engine",
        [
            "django_replswitch.sessions",
            "django_replswitch.sessions.cached_db",
            "django.contrib.sessions.backends.db",
            "django.contrib.sessions.backends.cached_db",
            "django.contrib.sessions.backends.cache",
            "django.contrib.sessions.backends.file",
        ],
    )

    @staticmethod
    def visit(request: Any) -> None:
        request.session["visits"] = request.session.get("visits", 0) + 1

    @DOORS
    @ENGINES
    @pytest.mark.parametrize(
        "saves", ["what it sets", "what it changes in place"], ids=["value that is set", "value changed in place"]
    )
    def test_r5_a_value_in_a_session_saved_by_the_view_does_not_change_twice(
        self, site: Site, door: Callable[..., Page], engine: str, saves: str
    ) -> None:
        def view(request: Any) -> HttpResponse:
            if saves == "what it sets":
                self.visit(request)
            else:
                request.session["cart"]["visits"] += 1
            request.session.save()
            return counter(request)

        def enter(request: Any) -> HttpResponse:
            request.session["visits"], request.session["cart"] = 0, {"visits": 0}
            return answer("entered")

        def tell(request: Any) -> HttpResponse:
            return answer(request.session["visits"] + request.session["cart"]["visits"])

        site.sessions(engine)
        site.serve(counter=view, enter=enter, tell=tell)
        visitor = site.visitor()
        visitor.post("/enter")
        if engine in ROWS:  # the save has moved, and the rest of the view with it
            page = door("GET", "/counter", {"Cookie": visitor.cookie})
            visitor.keep(page)  # with the marker
            assert (page.text, visitor.get("/tell").text) == ("2", "1")
            return
        with pytest.raises(SlaveWriteError):
            door("GET", "/counter", {"Cookie": visitor.cookie})
        assert (visitor.get("/tell").text, site.on("master")) == ("1", "1")
        assert door("GET", "/counter", {"Cookie": visitor.cookie}).text == "2", "the endpoint was not remembered"
        assert visitor.get("/tell").text == "2"

    def test_r5_a_session_in_the_cookie_is_discarded_with_the_first_try(
        self, site: Site, new_visitor: Visitors
    ) -> None:
        def view(request: Any) -> HttpResponse:
            self.visit(request)
            request.session.save()
            return answer(f"{count()} {request.session['visits']}")

        site.sessions("django.contrib.sessions.backends.signed_cookies")
        site.serve(counter=transaction.atomic(view), enter=lambda request: answer(self.visit(request)))
        visitor = new_visitor()
        visitor.post("/enter")
        assert visitor.get("/counter").text == "2 2"

    @ENGINES
    def test_r5_a_new_session_saved_by_the_view_prevents_no_replay(self, site: Site, engine: str) -> None:
        def view(request: Any) -> HttpResponse:
            for _ in range(2):
                self.visit(request)
                request.session.save()
            return transaction.atomic(lambda: answer(f"{count()} {request.session['visits']}"))()

        site.sessions(engine)
        site.serve(counter=view)
        assert site.visitor().get("/counter").text == "2 2"

    def test_r5_a_session_is_not_saved_twice_if_a_middleware_around_it_writes(self, site: Site) -> None:
        site.change(MIDDLEWARE=[MIDDLEWARE, f"{__name__}.counting_middleware", SESSIONS])
        site.serve(counter=lambda request: answer(self.visit(request)), tell=lambda r: answer(r.session["visits"]))
        visitor = site.visitor()
        visitor.post("/counter")
        with pytest.raises(SlaveWriteError):
            visitor.get("/counter")
        assert visitor.post("/tell").text == "2"


def counting_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """Count a view after it has run, if its name says so."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.method == "GET":
            counter(request)
        return response

    return middleware


@DOORS
@pytest.mark.parametrize("block", [transaction.atomic, nullcontext], ids=["after a block that reads", "at once"])
def test_r5_a_view_whose_on_commit_function_has_run_does_not_run_again(
    site: Site, door: Callable[..., Page], block: Any
) -> None:
    calls: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        with block():
            shown()
            transaction.on_commit(lambda: calls.append("called"))
        return counter(request)

    site.serve(counter=view)
    with pytest.raises(SlaveWriteError):
        door("GET", "/counter", {})
    assert calls == ["called"]
    assert door("GET", "/counter", {}).text == "2"


@DOORS
def test_r5_a_value_in_a_session_saved_by_an_inner_request_does_not_change_twice(
    site: Site, door: Callable[..., Page]
) -> None:
    def visit(request: Any) -> HttpResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return answer(request.session["visits"])

    def view(request: HttpRequest) -> HttpResponse:
        through_wsgi("GET", "/visit", {"Cookie": request.headers["Visitor"]})
        return counter(request)

    site.sessions()
    site.serve(counter=view, visit=visit)
    visitor = site.visitor()
    visitor.get("/visit")
    with pytest.raises(SlaveWriteError):
        door("GET", "/counter", {"Visitor": visitor.cookie})
    assert visitor.get("/visit").text == "3"


def swallowing_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """Count a view first, and catch every error."""

    def middleware(request: HttpRequest) -> HttpResponse:
        with suppress(BaseException):
            counter(request)
        return get_response(request)

    return middleware


class TestCachedPages:
    """Django's page cache."""

    @pytest.fixture(autouse=True)
    def empty_cache(self) -> None:
        cache.clear()

    @DOORS
    @pytest.mark.parametrize("whole_site", [False, True], ids=["cache_page", "cache middleware"])
    @pytest.mark.parametrize("is_declined", [False, True], ids=["runs again", "is declined"])
    def test_r5_the_page_of_a_view_that_catches_slave_write_error_is_not_cached(
        self, site: Site, door: Callable[..., Page], whole_site: bool, is_declined: bool
    ) -> None:
        def view(request: HttpRequest) -> HttpResponse:
            if is_declined:
                with use_master(), unrecorded():
                    Tag.objects.get_or_create(name="x")
            with suppress(BaseException):
                return answer(transaction.atomic(count)())
            return answer("sorry")

        if whole_site:
            at = "django.middleware.cache."
            site.change(MIDDLEWARE=[MIDDLEWARE, f"{at}UpdateCacheMiddleware", f"{at}FetchFromCacheMiddleware"])
        site.serve(counter=view if whole_site else cache_page(60)(view))
        pages = [door("GET", "/counter", {}).text for _ in range(3)]
        assert pages == (["sorry", "2", "2"] if is_declined else ["2", "2", "2"])

    @DOORS
    def test_r5_a_page_is_not_cached_if_a_middleware_has_caught_slave_write_error_before_the_view(
        self, site: Site, door: Callable[..., Page]
    ) -> None:
        site.change(MIDDLEWARE=[MIDDLEWARE, f"{__name__}.swallowing_middleware"])
        site.serve(counter=cache_page(60)(lambda request: answer(shown())))
        assert [door("GET", "/counter", {}).text for _ in range(2)] == ["2", "2"]
        assert site.on("master") == "3"


class TestOtherDatabases:
    """An alias with a backend of Django's own, beside the replicated ones."""

    @pytest.fixture(autouse=True)
    def stock(self, site: Site, tmp_path: Path) -> Iterator[None]:
        settings = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3"}
        settings |= {"NAME": str(tmp_path / "stock"), "OPTIONS": {}}
        settings.pop("SLAVES", None)
        connections.settings["stock"] = settings
        with connections["stock"].cursor() as cursor:
            cursor.execute("CREATE TABLE visit (number INTEGER)")
        yield
        connections["stock"].close()
        del connections["stock"], connections.settings["stock"]

    @staticmethod
    def visit(sql: str = "INSERT INTO visit VALUES (1)") -> None:
        with connections["stock"].cursor() as cursor:
            cursor.execute(sql)

    @staticmethod
    def visits() -> int:
        with connections["stock"].cursor() as cursor:
            cursor.execute("  select count(*) FROM visit")
            return int(cursor.fetchone()[0])

    @DOORS
    @pytest.mark.parametrize("how", ["in autocommit mode", "in a block", "returning rows", "in a thread"])
    def test_r5_a_view_that_has_committed_on_another_database_does_not_commit_twice(
        self, site: Site, door: Callable[..., Page], how: str
    ) -> None:
        def in_a_thread() -> None:
            self.visit()
            connections["stock"].close()

        def view(request: HttpRequest) -> HttpResponse:
            if how == "in a block":
                with transaction.atomic(using="stock"), transaction.atomic(using="stock"):
                    self.visit()
            elif how == "in a thread":
                thread = Thread(target=in_a_thread)
                thread.start()
                thread.join()
            else:
                self.visit("INSERT INTO visit VALUES (1)" + (" RETURNING number" if how == "returning rows" else ""))
            return counter(request)

        site.serve(counter=view)
        with pytest.raises(SlaveWriteError):
            door("GET", "/counter", {})
        assert (self.visits(), site.on("master")) == (1, "1")
        assert door("GET", "/counter", {}).text == "2"

    @DOORS
    @pytest.mark.parametrize("how", ["rolled back", "rolled back to a savepoint", "only read"])
    def test_r5_an_uncommitted_write_on_another_database_prevents_no_replay(
        self, site: Site, door: Callable[..., Page], how: str
    ) -> None:
        def view(request: HttpRequest) -> HttpResponse:
            if how == "only read":
                with transaction.atomic(using="stock"):
                    self.visits()
                self.visits()
                return counter(request)
            with transaction.atomic(using="stock"):
                if how == "rolled back":
                    self.visit()
                    return counter(request)
                with suppress(ZeroDivisionError), transaction.atomic(using="stock"):
                    self.visit()
                    raise ZeroDivisionError
            return counter(request)

        site.serve(counter=view)
        assert door("GET", "/counter", {}).text == "2"
        assert self.visits() == (how == "rolled back")


class TestClosers:
    """Functions that run when a response is closed."""

    @staticmethod
    def closing(response: Any, close: Callable[[], object]) -> Any:
        response._resource_closers.append(close)
        return response

    @pytest.mark.parametrize(
        ("kind", "door"),
        [(HttpResponse, through_wsgi), (HttpResponse, through_asgi), (StreamingHttpResponse, through_wsgi)],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_s9_a_function_called_at_the_close_of_a_response_sees_what_its_request_has_written(
        self, site: Site, door: Callable[..., Page], kind: Any, method: str
    ) -> None:
        told: list[str] = []

        def view(request: HttpRequest) -> HttpResponse:
            if request.method == "POST":
                write(2)

            def close() -> None:
                told.append(f"{connections['default'].state} {shown()}")  # type: ignore[attr-defined]  # ours

            return self.closing(kind(b"x"), close)  # type: ignore[no-any-return]

        site.serve(closing=view)
        site.pair.lag = 60
        with use_master():
            write(3)
        door(method, "/closing", {})
        assert told == ["slave 1" if method == "GET" else "master 1 3 2"]
        site.pair.lag = 0
        site.pair.wait_caught_up()

    @DOORS
    @pytest.mark.parametrize("closes", ["with a read", "with a refused write", "with a commit"])
    def test_r5_a_function_called_at_the_close_of_the_first_response_runs_in_its_state(
        self, site: Site, door: Callable[..., Page], closes: str
    ) -> None:
        told: list[str] = []

        def close() -> None:
            told.append(connections["default"].state)  # type: ignore[attr-defined]  # ours
            if closes == "with a commit":
                with use_master():
                    write(7)
            elif closes != "with a read":
                transaction.atomic(count)()

        def view(request: HttpRequest) -> HttpResponse:
            with suppress(BaseException):
                return counter(request)
            return self.closing(answer("sorry"), close)  # type: ignore[no-any-return]

        site.serve(counter=view)
        if closes == "with a commit":
            with pytest.raises(SlaveWriteError, match="commit"):
                door("GET", "/counter", {})
            assert site.on("master") == "1 7"
        else:
            assert (door("GET", "/counter", {}).text, site.on("master")) == ("2", "2")
        assert told == ["slave"]
