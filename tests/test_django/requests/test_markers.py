"""Markers: the cookie, its keys, the setting REPLSWITCH, and which requests make one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from tests.once import FIRST_WRITE, KNOWN_SLAVE, NEXT_WRITE, Once
from tests.test_django.project.models import Message, Tag
from tests.test_django.requests.board import Visitor, answer, board, connection, connections, shown, through_wsgi, write

from django_replswitch.decorators import use_master, use_slave
from replswitch.request.marker import Marker, MarkerSigner

if TYPE_CHECKING:
    from tests.test_django.project.dialect import Pair
    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors

SECRET = "a long random string of the tests"


def token(age: float = 0, secret: Any = SECRET) -> str:
    return MarkerSigner(secret).write(Marker(time.time() - age))


def side(cookie: str, **changed: Any) -> str:
    with override_settings(**changed):
        return through_wsgi("GET", "/", {"Cookie": cookie}).side


# The cookie


def test_m6_the_cookie_has_its_default_attributes(site: Site, new_visitor: Visitors) -> None:
    (marker,) = new_visitor().post("/?n=2").markers
    told = {name: marker[name] for name in ("max-age", "path", "domain", "samesite", "httponly", "secure")}
    assert told == {
        "max-age": marker["max-age"],
        "path": "/",
        "domain": "",
        "samesite": "Lax",
        "httponly": True,
        "secure": "",
    }
    assert int(marker["max-age"]) == 3600


def test_m6_the_cookie_is_secure_on_https(site: Site) -> None:
    with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        (marker,) = site.visitor().post("/?n=2", X_Forwarded_Proto="https").markers
    assert marker["secure"] is True
    response: Any = Client().post("/?n=3", secure=True)
    assert [cookie["secure"] for cookie in response.cookies.values()] == [True]


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"POSITION_MAX_AGE": 42}, {"max-age": 42}),
    ({"POSITION_MAX_AGE": 1.5}, {"max-age": 2}),
    ({"COOKIE_PATH": "/board/"}, {"path": "/board/"}),
    ({"COOKIE_DOMAIN": "example.com"}, {"domain": "example.com"}),
    ({"COOKIE_SAMESITE": "Strict"}, {"samesite": "Strict"}),
    ({"COOKIE_SAMESITE": None}, {"samesite": ""}),
    ({"COOKIE_SAMESITE": "None"}, {"samesite": "None", "secure": True}),
    ({"COOKIE_SECURE": True}, {"secure": True}),
]


def test_m6_the_cookie_has_the_attributes_of_the_settings(site: Site) -> None:
    for options, wanted in OPTIONS:
        site.options(**options)
        (marker,) = site.visitor().post("/?n=2").markers
        assert {name: marker[name] for name in wanted} == wanted, options


def test_cookie_name_is_read_from_the_settings(site: Site) -> None:
    site.options(COOKIE_NAME="written")
    site.pair.stop_slave()
    visitor = site.visitor()
    (name,) = visitor.post("/?n=2").cookies
    assert name.startswith("written")
    assert visitor.get().side == "master"
    assert side(f"just_updated={token()}") == "slave"


def test_a_marker_without_a_position_holds_for_cookie_max_age_of_the_settings(site: Site) -> None:
    assert side(f"just_updated={token(9)}") == "master"
    assert side(f"just_updated={token(11)}") == "slave"
    site.options(COOKIE_MAX_AGE=30)
    assert side(f"just_updated={token(29)}") == "master"
    assert side(f"just_updated={token(31)}") == "slave"


def test_m4_markers_under_all_names_are_merged(site: Site, new_visitor: Visitors) -> None:
    for name in ("just_updated", "just_updated_1", "just_updated_2", "just_updated_3"):
        assert new_visitor().get(Cookie=f"other=1; {name}={token()}").side == "master"
    assert new_visitor().get(Cookie=f"just_updated_99={token()}").side == "slave"
    assert new_visitor().get(Cookie=f"just_updated={token(11)}; just_updated_1={token()}").side == "master"


def test_m4_forged_cookies_do_not_hide_a_valid_marker(site: Site, new_visitor: Visitors) -> None:
    forged = "; ".join(f"just_updated={token(number, 'another secret')}" for number in range(40))
    assert new_visitor().get(Cookie=f"{forged}; just_updated={token()}").side == "master"


@pytest.mark.parametrize("order", ["{good}; {bad}", "{bad}; {good}"], ids=["valid one first", "valid one last"])
def test_m4_a_second_cookie_of_the_same_name_hides_no_marker(site: Site, order: str) -> None:
    """Browsers send one for each path and domain: RFC 6265, section 5.4."""
    for bad in ("junk", token(11)):
        assert side(order.format(good=f"just_updated={token()}", bad=f"just_updated={bad}")) == "master"


def test_m4_parallel_responses_get_different_cookie_names(site: Site) -> None:
    names = {name for n in range(4) for name in through_wsgi("POST", f"/?n={n}", {}).cookies}
    assert names == {"just_updated", "just_updated_1", "just_updated_2", "just_updated_3"}


# Keys


def test_m2_markers_signed_with_a_key_of_secret_key_fallbacks_are_accepted(site: Site) -> None:
    old, new = "the old key of the tests", "the new key of the tests"
    assert side(f"just_updated={token(secret=old)}", SECRET_KEY=old) == "master"
    assert side(f"just_updated={token(secret=old)}", SECRET_KEY=new) == "slave"
    assert side(f"just_updated={token(secret=old)}", SECRET_KEY=new, SECRET_KEY_FALLBACKS=[old]) == "master"
    site.pair.stop_slave()
    with override_settings(SECRET_KEY=new, SECRET_KEY_FALLBACKS=[old]):
        (marker,) = site.visitor().post("/?n=2").markers
    assert side(f"just_updated={marker.value}", SECRET_KEY=new) == "master"
    assert side(f"just_updated={marker.value}", SECRET_KEY=old) == "slave"


def test_m5_a_value_signed_by_another_part_of_django_is_no_marker(site: Site) -> None:
    assert side(f"just_updated={signing.dumps({'t': time.time()})}") == "slave"


# REPLSWITCH


def test_enabled_false_keeps_every_request_on_the_master_without_markers(site: Site, new_visitor: Visitors) -> None:
    asked: list[object] = []
    site.options(ENABLED=False, OVERRIDE=asked.append)
    site.serve(view=use_slave(board))
    for path in ("/", "/view"):
        page = new_visitor().get(path, Cookie=f"just_updated={token()}")
        assert (page.side, page.markers) == ("master", [])
        assert "reason=disabled" in page.told
        assert new_visitor().post(f"{path}?n=2").markers == []
    assert asked == []


def test_r1_the_override_setting_chooses_the_state(site: Site, new_visitor: Visitors) -> None:
    def override(request: HttpRequest) -> str | None:
        return request.GET.get("wanted")

    site.options(OVERRIDE=override)
    site.pair.stop_slave()
    write(2)
    assert new_visitor().get("/?wanted=master").text == "1 2"
    assert new_visitor().get("/?wanted=slave").text == "1"
    assert new_visitor().get().side == "slave"
    assert new_visitor().get("/?wanted=slave", Cookie=f"just_updated={token()}").text == "1 2"
    site.assert_lagged()
    with pytest.raises(Exception, match=r'option "override" returned \'both\'\. It must return "master"'):
        Client().get("/?wanted=both")


def test_the_debug_header_is_off_by_default(site: Site) -> None:
    with override_settings(REPLSWITCH={}):
        assert "Replswitch" not in Client().get("/")
        del settings.REPLSWITCH
        assert "Replswitch" not in Client().get("/")
    assert "Replswitch" in Client().get("/")


def test_s8_on_slave_write_is_read_from_the_settings(site: Site) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        write(2)
        return answer("written")

    site.serve(view=view)
    site.options(ON_SLAVE_WRITE="error")
    assert through_wsgi("GET", "/view", {}, raising=False).status == 500
    assert site.on("master") == "1"
    site.options(ON_SLAVE_WRITE="master")
    assert through_wsgi("GET", "/view", {}).text == "written"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"COOKIE_NAEM": "x"}, r'Unknown option "COOKIE_NAEM"\. Did you mean "COOKIE_NAME"\?'),
        ({"cookie_name": "x"}, r'Unknown option "cookie_name"'),
        ({1: 2}, r'Unknown option "1"'),
        ({"COOKIE_MAX_AGE": "10"}, r"cookie_max_age\" is '10'\. It must be a number of seconds"),
        ({"COOKIE_MAX_AGE": 0}, "a number of seconds above 0"),
        ({"COOKIE_NAME": "a b"}, "letters, digits"),
        ({"ENABLED": "no"}, "True or False"),
        ({"OVERRIDE": "path.to.function"}, "a function of the request"),
        ({"COOKIE_SAMESITE": "None", "COOKIE_SECURE": False}, "browsers refuse such a cookie"),
        ({"ON_SLAVE_WRITE": "ignore"}, r'"on_slave_write" is \'ignore\'\. It must be "master", "error" or "force"'),
        ({"ON_SLAVE_WRITE": []}, r'It must be "master", "error" or "force"'),
        ([("ENABLED", True)], "It must be a dictionary of options"),
        (None, "It must be a dictionary of options"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(wrong: Any, message: str) -> None:
    with (
        override_settings(REPLSWITCH=wrong),
        pytest.raises(ImproperlyConfigured, match=rf"(?is)^settings\.REPLSWITCH: .*{message}"),
    ):
        Client().get("/")


@override_settings(REPLSWITCH={"DEBUG_HEADER": True, "COOKIE_NAME": "decorated"})
def test_override_settings_works_as_a_decorator(django_pair: object) -> None:
    with override_settings(ROOT_URLCONF="tests.test_django.requests.urls"):
        response: Any = Client().post("/?n=2")
    (name,) = response.cookies
    assert name.startswith("decorated")


def test_override_settings_takes_effect_for_an_existing_client(site: Site) -> None:
    client: Any = Client()
    for max_age in (20, 30):
        with override_settings(REPLSWITCH={"POSITION_MAX_AGE": max_age}):
            assert {cookie["max-age"] for cookie in client.post("/?n=2").cookies.values()} == {max_age}


# Which requests make a marker


def no_query(request: HttpRequest) -> HttpResponse:
    return answer("")


def rolled_back(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        write(2)
        transaction.set_rollback(True)
    return answer("", 302)


def refused_by_the_database(request: HttpRequest) -> HttpResponse:
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO project_message (body) VALUES (NULL)")
    return answer("")


def test_a_post_that_changes_nothing_makes_no_marker(site: Site, new_visitor: Visitors) -> None:
    views = (no_query, rolled_back, refused_by_the_database)
    site.serve(**{view.__name__: view for view in views})
    assert [new_visitor().post(f"/{view.__name__}").cookies for view in views] == [{}] * 3


def test_a_request_that_only_reads_on_the_master_makes_no_marker(site: Site) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        with use_master():
            return answer(shown())

    site.serve(view=view)
    assert [site.visitor().send(method, "/view").markers for method in ("GET", "POST")] == [[], []]


def test_m6_a_get_without_a_write_sets_no_cookie(site: Site, new_visitor: Visitors) -> None:
    assert new_visitor().get().cookies == {}
    assert new_visitor().send("HEAD").cookies == {}


def test_m3_a_get_with_a_marker_sets_no_cookie(site: Site, new_visitor: Visitors) -> None:
    page = new_visitor().get(Cookie=f"just_updated={token()}")
    assert (page.side, page.cookies) == ("master", {})


def queryset(request: HttpRequest) -> None:
    Message.objects.update(body="2")


def bulk(request: HttpRequest) -> None:
    Message.objects.bulk_create([Message(body="2"), Message(body="3")])


def deleted(request: HttpRequest) -> None:
    Message.objects.all().delete()


def related(request: HttpRequest) -> None:
    Message.objects.get().tags.create(name="tag")


def in_a_transaction(request: HttpRequest) -> None:
    with transaction.atomic(), transaction.atomic():
        write(2)


def on_commit(request: HttpRequest) -> None:
    with transaction.atomic():
        transaction.on_commit(lambda: write(2))


def in_a_manual_transaction(request: HttpRequest) -> None:
    transaction.set_autocommit(False)
    try:
        write(2)
        transaction.commit()
    finally:
        transaction.set_autocommit(True)


def raw_sql(request: HttpRequest) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE project_message SET body = 'raw'")


def in_the_other_database(request: HttpRequest) -> None:
    Message.objects.using("other").create(body="2")


WRITES = [
    queryset,
    bulk,
    deleted,
    related,
    in_a_transaction,
    on_commit,
    in_a_manual_transaction,
    raw_sql,
    in_the_other_database,
]


@pytest.mark.parametrize("change", WRITES)
def test_a_request_that_commits_a_change_makes_a_marker(site: Site, change: Any) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        if request.method == "GET":
            for database in connections.all():
                database.use_master()
        change(request)
        return answer("")

    site.serve(view=view)
    assert len(site.visitor().post("/view").markers) == 1
    Message.objects.all().delete()
    Tag.objects.all().delete()
    write(1)
    assert len(site.visitor().get("/view").markers) == 1


# Sessions


def touches_its_session(request: HttpRequest) -> HttpResponse:
    before = shown()
    request.session["visits"] = request.session.get("visits", 0) + 1
    request.session.save()
    return answer(f"{request.session['visits']};{before};{shown()};{connection.state}")


@pytest.mark.parametrize("engine", ["django_replswitch.sessions", "django_replswitch.sessions.cached_db"])
def test_a_session_makes_no_marker_and_moves_no_read(site: Site, new_visitor: Visitors, engine: str) -> None:
    site.sessions(engine)
    site.serve(view=touches_its_session)
    site.pair.stop_slave()
    write(2)
    visitor = new_visitor()
    pages = [visitor.get("/view") for _ in range(3)]
    site.assert_lagged()
    assert [page.text for page in pages] == [f"{n};1;1;slave" for n in (1, 2, 3)]
    assert [page.markers for page in pages] == [[], [], []]
    assert not any("own-write" in page.told for page in pages)
    assert list(visitor.jar) == ["sessionid"]


def test_a_post_that_touches_only_its_session_makes_no_marker(site: Site, new_visitor: Visitors) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session["x"] = 1
        return answer("", 302)

    site.sessions()
    site.serve(view=view)
    visitor = new_visitor()
    assert visitor.post("/view").markers == []
    assert visitor.get().side == "slave"


def test_a_write_beside_a_session_makes_a_marker(site: Site, new_visitor: Visitors) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session["x"] = 1
        request.session.save()
        write(2)
        request.session.save()
        return answer("", 302)

    site.sessions()
    site.serve(view=view)
    site.pair.stop_slave()
    visitor = new_visitor()
    assert len(visitor.post("/view").markers) == 1
    assert visitor.get().text == "1 2"
    site.assert_lagged()


def test_a_request_compares_merges_and_writes_its_marker_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, django_pair: Pair
) -> None:
    visitor, once = Visitor(through_wsgi), Once(monkeypatch)
    assert once.of(visitor.post, "/?n=2") == FIRST_WRITE
    django_pair.wait_caught_up()
    visitor.get()  # which asks the slave
    assert once.of(visitor.get).items() >= KNOWN_SLAVE.items()
    assert once.of(visitor.post, "/?n=3") == NEXT_WRITE
