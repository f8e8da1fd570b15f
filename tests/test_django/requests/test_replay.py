"""A GET that reads and then writes in a transaction runs once more, on the master (R5)."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from tests.test_django.project.models import Message
from tests.test_django.requests.board import (
    MIDDLEWARE,
    SESSIONS,
    answer,
    connection,
    connections,
    shown,
    through_asgi,
    through_wsgi,
    write,
)

from replswitch import SlaveWriteError, stats, unrecorded
from replswitch.decorators import use_master

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors

MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"


def count() -> str:
    """Read the number, write it plus one, and return the numbers that are stored then."""
    last = Message.objects.order_by("-id").get()
    last.body = str(int(last.body) + 1)
    last.save()
    return shown()


@transaction.atomic
def counter(request: HttpRequest) -> HttpResponse:
    """Count a view: read, then write."""
    return answer(count())


async def acounter(request: HttpRequest) -> HttpResponse:
    """Count a view in an asynchronous view."""
    return await sync_to_async(counter)(request)


def replays() -> int:
    """Return how many requests have run again in this process."""
    return sum(stats()["replay"].values())


def test_r5_a_view_counter_runs_again_and_counts_once(
    site: Site, new_visitor: Visitors, caplog: pytest.LogCaptureFixture
) -> None:
    site.serve(counter=counter)
    before = replays()
    page = new_visitor().get("/counter")
    assert (page.status, page.text, page.told.split("; ")[0]) == (200, "2", "master")
    assert page.told.endswith("reason=replay")
    assert len(page.markers) == 1
    assert site.on("master") == "2"
    assert replays() == before + 1
    (record,) = [record for record in caplog.records if "ran again on the master" in record.getMessage()]
    assert "test_replay.py" in record.getMessage()
    assert "use_master()" in record.getMessage()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_r5_after_a_replay_the_endpoint_starts_on_the_master(site: Site, new_visitor: Visitors) -> None:
    site.serve(counter=counter)
    site.pair.lag = 60
    visitors = [new_visitor() for _ in range(3)]
    before = replays()
    assert [visitor.get("/counter").text for visitor in visitors] == ["2", "3", "4"]
    assert visitors[0].get("/counter").told.endswith("reason=learned")
    assert replays() == before + 1
    assert new_visitor().get().side == "slave", "other endpoints are served by the slave"
    site.pair.lag = 0
    site.pair.wait_caught_up()


def test_r5_a_view_under_atomic_requests_runs_again(
    site: Site, new_visitor: Visitors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return answer(count())

    site.serve(counter=view)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    for alias in connections:
        monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", alias == "default")
    page = new_visitor().get("/counter")
    assert (page.text, page.told.endswith("reason=replay")) == ("2", True)
    assert (new_visitor().get("/counter").text, site.on("master")) == ("3", "3")


def test_r5_an_async_view_runs_again(site: Site, new_visitor: Visitors) -> None:
    site.serve(counter=acounter)
    assert new_visitor().get("/counter").text == "2"
    assert site.on("master") == "2"


@pytest.mark.parametrize("gathers", ["gather", "gather with return_exceptions", "task group"])
def test_r5_a_write_in_one_of_several_tasks_causes_the_replay(site: Site, new_visitor: Visitors, gathers: str) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        page = acounter(request)
        if gathers == "task group":
            async with asyncio.TaskGroup() as group:
                task = group.create_task(page)
            return task.result()
        (response,) = await asyncio.gather(page, return_exceptions=gathers != "gather")
        return answer("failed", 500) if isinstance(response, BaseException) else response

    site.serve(counter=view)
    assert (new_visitor().get("/counter").text, site.on("master")) == ("2", "2")


def test_r5_the_second_try_gets_a_fresh_request(site: Site, new_visitor: Visitors) -> None:
    tries: list[dict[str, Any]] = []

    def tagging(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
        def middleware(request: HttpRequest) -> HttpResponse:
            request.META["TAGS"] = request.META.get("TAGS", "") + "x"
            tries.append({"attributes": set(vars(request)), "tags": request.META["TAGS"]})
            request.extra = True  # type: ignore[attr-defined]  # middleware often does this
            return get_response(request)

        return middleware

    site.change(MIDDLEWARE=[MIDDLEWARE, tagging_path(tagging)])
    site.serve(counter=counter)
    assert new_visitor().get("/counter").text == "2"
    first, second = tries
    assert first == second


def tagging_path(factory: Any) -> str:
    """Make a middleware importable for Django, and return its dotted path."""
    globals()["tagging_middleware"] = factory
    return f"{__name__}.tagging_middleware"


def test_r5_the_session_and_the_messages_change_once(site: Site, new_visitor: Visitors) -> None:
    @transaction.atomic
    def view(request: HttpRequest) -> HttpResponse:
        request.session["views"] = request.session.get("views", 0) + 1
        messages.info(request, "counted")
        told = len(messages.get_messages(request))
        return answer(f"{count()} {request.session['views']} {told}")

    site.serve(counter=view, login=lambda request: answer(request.session.setdefault("views", 0)))
    site.change(
        MIDDLEWARE=[MIDDLEWARE, SESSIONS, MESSAGES],
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    )
    visitor = new_visitor()
    visitor.post("/login")
    assert visitor.get("/counter").text == "2 1 1"
    assert visitor.get("/counter").text.startswith("3 2 ")


def test_r5_on_commit_runs_once(site: Site, new_visitor: Visitors) -> None:
    calls: list[str] = []

    @transaction.atomic
    def view(request: HttpRequest) -> HttpResponse:
        transaction.on_commit(lambda: calls.append("committed"))
        return answer(count())

    site.serve(counter=view)
    new_visitor().get("/counter")
    assert calls == ["committed"]


def test_r5_a_template_rendered_after_the_view_causes_the_replay(site: Site, new_visitor: Visitors) -> None:
    template = engines["django"].from_string("{{ counted }}")

    class Page(TemplateResponse):
        @property
        def rendered_content(self) -> Any:
            with transaction.atomic():
                return template.render({"counted": count()})

    site.serve(counter=lambda request: Page(request, template))
    assert (new_visitor().get("/counter").text, site.on("master")) == ("2", "2")


@pytest.mark.parametrize("caught", [Exception, BaseException, SlaveWriteError])
def test_r5_a_slave_write_error_that_the_application_catches_causes_the_replay(
    site: Site, new_visitor: Visitors, caught: Any
) -> None:
    @transaction.atomic
    def view(request: HttpRequest) -> HttpResponse:
        shown()
        with suppress(caught), transaction.atomic():
            write(2)
        return answer(shown())

    site.serve(counter=view)
    assert (new_visitor().get("/counter").text, site.on("master")) == ("1 2", "1 2")


def test_r5_a_stream_that_writes_is_not_run_again_and_begins_on_the_master_the_next_time(site: Site) -> None:
    def pieces() -> Any:
        with transaction.atomic():
            yield shown()
            write(2)
            yield "."

    site.serve(stream=lambda request: StreamingHttpResponse(pieces()))
    with pytest.raises(SlaveWriteError):
        through_wsgi("GET", "/stream", {})
    assert through_wsgi("GET", "/stream", {}).text == "1."
    assert site.on("master") == "1 2"


class TestDeclined:
    """A commit is never done twice: the error is raised, and the endpoint starts on the master from then on."""

    DOORS = pytest.mark.parametrize("door", [through_wsgi, through_asgi], ids=["wsgi", "asgi"])

    @DOORS
    @pytest.mark.parametrize("when", ["before", "in a finally"], ids=["before the refused write", "in a finally"])
    def test_r5_no_replay_after_another_commit(self, site: Site, door: Any, when: str) -> None:
        def commit() -> None:
            with use_master():
                write(7)

        def view(request: HttpRequest) -> HttpResponse:
            try:
                if when == "before":
                    commit()
                    site.pair.wait_caught_up()
                with transaction.atomic():
                    shown()
                    write(2)
            finally:
                if when != "before":
                    commit()
            return answer(shown())

        site.serve(counter=view)
        with pytest.raises(SlaveWriteError):
            door("GET", "/counter", {})
        assert site.on("master") == "1 7"

    @DOORS
    def test_r5_no_replay_after_an_unrecorded_write(self, site: Site, door: Any) -> None:
        def view(request: HttpRequest) -> HttpResponse:
            with use_master(), unrecorded():
                write(7)
            with transaction.atomic():
                Message.objects.count()
                write(2)
            return answer(shown())

        site.serve(counter=view)
        with pytest.raises(SlaveWriteError):
            door("GET", "/counter", {})
        assert site.on("master") == "1 7"

    @DOORS
    def test_r5_no_replay_after_the_session_got_another_key(self, site: Site, door: Any) -> None:
        def view(request: HttpRequest) -> HttpResponse:
            request.session.cycle_key()
            with transaction.atomic():
                shown()
                write(2)
            return answer(shown())

        site.sessions()
        site.serve(login=view, enter=lambda request: answer(request.session.setdefault("views", 0)))
        visitor = site.visitor()
        visitor.post("/enter")
        with pytest.raises(SlaveWriteError):
            door("GET", "/login", {"Cookie": visitor.cookie})
        visitor = site.visitor()
        visitor.post("/enter")
        assert door("GET", "/login", {"Cookie": visitor.cookie}).text == "1 2"

    def test_r5_no_replay_after_a_long_first_try(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("replswitch.request.replay.LONGEST_TRY", 0)
        site.serve(counter=counter)
        with pytest.raises(SlaveWriteError):
            through_wsgi("GET", "/counter", {})
        assert through_wsgi("GET", "/counter", {}).text == "2"

    @pytest.mark.parametrize("options", [{"REPLAY": False}, {"ON_SLAVE_WRITE": "error"}])
    def test_r5_no_replay_if_an_option_turns_the_replay_off(self, site: Site, options: dict[str, Any]) -> None:
        site.serve(counter=counter)
        site.options(**options)
        for _ in range(2):
            with pytest.raises(SlaveWriteError):
                through_wsgi("GET", "/counter", {})
        assert site.on("master") == "1"

    def test_r5_no_replay_if_the_middleware_does_not_come_first(self, site: Site) -> None:
        site.change(MIDDLEWARE=[SESSIONS, MIDDLEWARE])
        site.serve(counter=counter)
        for _ in range(2):  # nothing is remembered
            with pytest.raises(SlaveWriteError):
                through_wsgi("GET", "/counter", {})
