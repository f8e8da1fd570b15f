"""M8: all aliases of one master, and connections by `connect` to it, are one replicated set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest, HttpResponse
from tests.test_django.backend.asking import ask, connect, forget
from tests.test_django.project.dialect import IS_POSTGRESQL, only_mariadb
from tests.test_django.project.models import Message
from tests.test_django.project.served import DRIVER, ENGINE
from tests.test_django.requests.board import answer, connections, write

import replswitch
from django_replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors

SQLITE = "django_replswitch.backends.sqlite3"


def in_other() -> str:
    """Read the messages of the other alias's database through the alias ``default``, as MariaDB can."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT body FROM test_other.project_message ORDER BY id")
        return " ".join(body for (body,) in cursor.fetchall())


def two_aliases(request: HttpRequest) -> HttpResponse:
    """Write through one alias, and read through the other."""
    if request.method == "POST":
        Message.objects.using("other").create(body="2")
    with use_slave():
        return answer(in_other())


@only_mariadb
def test_m8_a_write_by_one_alias_is_seen_by_another_in_the_same_request_and_the_next(
    site: Site, new_visitor: Visitors
) -> None:
    site.serve(two_aliases=two_aliases)
    site.pair.stop_slave()
    visitor = new_visitor()
    assert visitor.post("/two_aliases").text == "2"
    page = visitor.get("/two_aliases")
    assert page.text == "2"
    assert page.side == "master"


@only_mariadb
def test_m8_a_write_by_one_alias_is_read_by_another_on_a_slave_that_has_caught_up(
    site: Site, new_visitor: Visitors
) -> None:
    site.serve(two_aliases=two_aliases)
    visitor = new_visitor()
    visitor.post("/two_aliases")
    site.pair.wait_caught_up()
    page = visitor.get("/two_aliases")
    assert page.text == "2"
    assert page.side == "slave"


def test_m8_a_write_by_one_alias_counts_for_all_aliases_of_the_master(site: Site) -> None:
    site.pair.stop_slave()
    with use_master():
        Message.objects.using("other").create(body="2")
        with use_slave():
            ask(connections["default"], "SELECT 1")
            assert connections["default"].route.reason == "own-write"
    with use_slave():
        ask(connections["default"], "SELECT 1")
        assert connections["default"].route.side == "slave"


def test_m8_a_write_by_connect_is_seen_by_an_alias_in_the_same_request(site: Site) -> None:
    site.pair.stop_slave()
    with replswitch.connect(site.pair.master, site.pair.slaves, driver=DRIVER) as db, use_master():
        with db.cursor() as cursor:
            cursor.execute("INSERT INTO project_message (body) VALUES ('2')")
        with use_slave():
            assert ask(connections["default"], "SELECT COUNT(*) FROM project_message") == 2


def test_m8_a_write_by_an_alias_is_seen_by_connect_in_the_same_request(site: Site) -> None:
    site.pair.stop_slave()
    with replswitch.connect(site.pair.master, site.pair.slaves, driver=DRIVER) as db, use_master():
        write(2)
        with use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM project_message")
            assert cursor.fetchone()[0] == 2


def test_m8_a_write_of_unknown_position_keeps_other_aliases_on_the_master(site: Site) -> None:
    with use_master():
        connections["other"].route.database.writes.record_unknown(
            is_lost=True
        )  # as after a commit whose result was lost
        with use_slave():
            ask(connections["default"], "SELECT 1")
            assert connections["default"].route.reason == "own-write"


def set_of(**settings: Any) -> tuple[str, str]:
    """Return the name of an alias's replicated set in markers, and the alias's name in messages."""
    wrapper = connect(**{"ENGINE": ENGINE, **settings})
    try:
        database = wrapper.route.database
        return database.set_name, "alias" if database.name == wrapper.alias else database.name
    finally:
        forget(wrapper)


SERVER = {"HOST": "master.db", "NAME": "shop", "SLAVES": [{"HOST": "slave.db"}]}
PORT = 5432 if IS_POSTGRESQL else 3306


def set_of_connect(**master: Any) -> str:
    """Return the name that `replswitch.connect` gives to the same."""
    return replswitch.connect(master, driver=DRIVER).database.set_name


@pytest.mark.parametrize(
    "settings",
    [
        SERVER,
        {**SERVER, "NAME": "log", "USER": "another", "PASSWORD": "another"},
        {**SERVER, "PORT": str(PORT)},
        {**SERVER, "SLAVES": []},
        {"NAME": "shop", "OPTIONS": {"host": "master.db", "port": PORT}},
    ],
)
def test_m8_the_set_is_named_by_the_address_of_the_master_and_messages_by_the_alias(settings: Any) -> None:
    assert set_of(**settings) == (set_of_connect(host="master.db"), "alias")


@only_mariadb
def test_m8_the_set_of_a_master_with_a_unix_socket_is_named_by_the_socket(django_pair: Any) -> None:
    theirs = set_of_connect(unix_socket="/run/db.sock")
    assert set_of(HOST="/run/db.sock", NAME="shop")[0] == theirs
    assert set_of(NAME="shop", OPTIONS={"unix_socket": "/run/db.sock"})[0] == theirs
    assert set_of(NAME="shop")[0] != theirs


def test_m8_the_replicated_set_setting_names_the_set(django_pair: Any) -> None:
    assert set_of(**SERVER, REPLICATED_SET="orders") == ("orders", "alias")


def test_m8_the_set_of_a_sqlite_file_is_named_by_its_path(tmp_path: Any, django_pair: Any) -> None:
    file = tmp_path / "shop.db"
    theirs = replswitch.connect({"database": str(file)}, driver="sqlite3").database.set_name
    assert set_of(ENGINE=SQLITE, NAME=file)[0] == theirs
