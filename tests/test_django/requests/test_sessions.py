"""``SESSION_ENGINE = "django_replswitch.sessions"`` and its cached twin: always on the master, with Django's rows."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.sessions.backends import cached_db, db
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.management import call_command
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from tests.django_suite import suite_source
from tests.test_django.requests import session_contract
from tests.test_django.requests.board import answer, connection, connections, shown, write

import django_replswitch.sessions
import django_replswitch.sessions.cached_db

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors

ENGINES = ["django_replswitch.sessions", "django_replswitch.sessions.cached_db"]
OURS = [django_replswitch.sessions.SessionStore, django_replswitch.sessions.cached_db.SessionStore]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    cache.clear()
    return request.param


@pytest.mark.timeout(600)  # Django's tests are downloaded first, and a machine may be busy
def test_the_session_engine_passes_django_s_own_tests(site: Site) -> None:
    try:
        folder = suite_source.tests_of_django(suite_source.default_cache())
    except suite_source.MissingError as error:
        pytest.skip(str(error))
    site.pair.stop_slave()
    done = subprocess.run(
        [sys.executable, session_contract.__file__, str(folder)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DJANGO_SETTINGS_MODULE": "tests.test_django.project.settings",
            "PROJECT_DATABASES": json.dumps(settings.DATABASES),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count, told = done.stdout.splitlines()[-1].split(" ", 1)
    assert told == "run, 0 failed", done.stdout
    assert int(count) > 250


@pytest.mark.parametrize(
    ("old", "new"),
    [(db, OURS[0]), (cached_db, OURS[1]), (db, OURS[1])],
    ids=["db-sessions", "cached_db-sessions.cached_db", "db-sessions.cached_db"],
)
def test_sessions_of_django_s_engine_and_of_ours_read_the_rows_of_each_other(site: Site, old: Any, new: Any) -> None:
    for first, second in ((old.SessionStore, new), (new, old.SessionStore)):
        store = first()
        store["name"] = "visitor"
        store.save()
        again = second(session_key=store.session_key)
        assert again["name"] == "visitor"
        again["name"] = "other"
        again.save()
        row = Session.objects.get(session_key=store.session_key)
        assert row.get_decoded() == {"name": "other"}
        assert second.get_model_class() is Session


def visits(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return answer(request.session["visits"])


def test_session_cookies_of_django_s_engine_and_of_ours_are_valid_for_each_other(site: Site, engine: str) -> None:
    theirs = engine.replace("django_replswitch.sessions", "django.contrib.sessions.backends")
    theirs = theirs if theirs.endswith("cached_db") else f"{theirs}.db"
    import_module(theirs)
    site.serve(view=visits)
    visitor = site.visitor()
    for number, used in enumerate((theirs, engine, theirs, engine), 1):
        site.sessions(used)
        assert visitor.post("/view").text == str(number)


def test_a_new_session_can_be_read_at_once_in_slave_state(site: Site, new_visitor: Visitors, engine: str) -> None:
    site.sessions(engine)
    site.serve(view=visits)
    site.pair.stop_slave()
    visitor = new_visitor()
    assert [visitor.get("/view").text for _ in range(4)] == ["1", "2", "3", "4"]


STEPS: dict[str, Callable[[Any], Any]] = {
    "create": lambda store: store.create(),
    "save": lambda store: store.save(),
    "load": lambda store: store.load(),
    "exists": lambda store: store.exists(store.session_key),
    "cycle_key": lambda store: store.cycle_key(),
    "flush": lambda store: store.flush(),
    "delete": lambda store: store.delete(),
    "clear_expired": lambda store: type(store).clear_expired(),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_operation_of_a_session_is_on_the_master(site: Site, step: str) -> None:
    for store, asynchronous in itertools.product(OURS, (False, True)):
        made: Any = store()
        made["x"] = 1
        made.save()
        cache.clear()
        with connection.use_slave(), CaptureQueriesContext(connection) as captured:
            if asynchronous:
                arguments = (made.session_key,) if step == "exists" else ()
                async_to_sync(getattr(made, f"a{step}"))(*arguments)
            else:
                STEPS[step](made)
            assert connection.state == "slave"
            assert {query["db"] for query in captured.captured_queries} == {"master"}


def test_a_request_that_loads_no_session_opens_no_link_to_the_master(
    site: Site, new_visitor: Visitors, engine: str
) -> None:
    site.sessions(engine)
    visitor = new_visitor()
    visitor.jar["sessionid"] = ("0123456789abcdef0123456789abcdef", float("inf"))
    connection.close()
    with ExitStack() as recording:
        master = recording.enter_context(site.pair.statements("master"))
        page = visitor.get()
    assert (page.text, page.side) == ("1", "slave")
    assert master == []
    assert site.has_no_links("master")


def test_m1_the_header_says_that_the_session_has_used_the_master(site: Site, engine: str) -> None:
    site.sessions(engine)
    site.serve(view=visits)
    header = site.visitor().get("/view").told
    assert "reason=session" in header
    assert "use_master" not in header


def test_a_cached_session_is_read_without_the_master(site: Site, new_visitor: Visitors) -> None:
    def name(request: HttpRequest) -> HttpResponse:
        return answer(request.session.get("visits", 0))

    site.sessions(ENGINES[1])
    site.serve(view=visits, name=name)
    visitor = new_visitor()
    visitor.get("/view")
    connection.close()
    with site.pair.statements("master") as master:
        assert visitor.get("/name").text == "1"
    assert master == []


def test_expired_sessions_are_cleared_on_the_master(site: Site, engine: str) -> None:
    store = import_module(engine).SessionStore
    for seconds in (-10, 3600):
        made = store()
        made["x"] = 1
        made.set_expiry(timedelta(seconds=seconds))
        made.save()
    assert Session.objects.count() == 2
    with override_settings(SESSION_ENGINE=engine), connection.use_slave():
        call_command("clearsessions")
    assert [row.expire_date > timezone.now() for row in Session.objects.all()] == [True]


def test_a_login_that_changes_the_key_keeps_the_visitor(site: Site, new_visitor: Visitors, engine: str) -> None:
    def login(request: HttpRequest) -> HttpResponse:
        request.session.cycle_key()
        request.session["visits"] = 10
        return answer("", 302)

    def logout(request: HttpRequest) -> HttpResponse:
        request.session.flush()
        return answer("", 302)

    site.sessions(engine)
    site.serve(view=visits, login=login, logout=logout)
    site.pair.stop_slave()
    visitor = new_visitor()
    visitor.get("/view")
    before = visitor.jar["sessionid"]
    visitor.post("/login")
    assert visitor.jar["sessionid"] != before
    assert visitor.get("/view").text == "11"
    visitor.post("/logout")
    visitor.jar["sessionid"] = before
    assert visitor.get("/view").text == "1"


def test_a_session_in_a_transaction_of_the_view_is_on_the_master(site: Site, engine: str) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            found = shown()  # from the slave
            request.session["x"] = request.session.get("x", 0) + 1
            request.session.save()
        return answer(f"{found};{request.session['x']}")

    site.sessions(engine)
    site.serve(view=view)
    site.pair.stop_slave()
    write(2)
    page = site.visitor().get("/view")
    assert (page.text, page.markers) == ("1;1", [])
    site.assert_lagged()


def test_a_session_read_under_atomic_requests_is_on_the_master(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return answer(request.session.get("visits"))

    site.sessions()
    site.serve(view=view, visits=visits)
    visitor = site.visitor()
    visitor.get("/visits")
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    page = visitor.get("/view")
    assert (page.text, page.markers) == ("1", [])
