"""Situations in which other packages for Django were seen to fail, each test named after its situation.

The slave really lags wherever that matters, and each of these tests proves it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from tests.test_django.backend.asking import ask, default_with
from tests.test_django.project import dialect
from tests.test_django.project.dialect import IS_POSTGRESQL, only_mariadb
from tests.test_django.project.models import Message, Reply, Tag
from tests.test_django.requests.board import (
    Page,
    Site,
    Visitor,
    answer,
    connection,
    live_server,
    shown,
    through_asgi,
    through_wsgi,
    write,
)

from django_replswitch.decorators import use_master, use_slave
from replswitch import SlaveWriteError
from replswitch.testing import MariaDBPair, PostgreSQLPair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.test_django.conftest import RunPython
    from tests.test_django.project.dialect import Pair
    from tests.test_django.requests.conftest import Visitors


def test_m3_two_gets_after_a_post_see_the_write_while_the_slave_lags(site: Site, new_visitor: Visitors) -> None:
    site.pair.stop_slave()
    visitor = new_visitor()
    pages = [visitor.submit("/?n=2"), *(visitor.get() for _ in range(20))]
    site.assert_lagged()
    assert [page.text for page in pages] == ["1 2"] * 21
    assert {page.side for page in pages} == {"master"}


def test_m3_after_post_redirect_get_reads_return_to_the_slave_once_it_has_the_write(site: Site) -> None:
    site.pair.lag = 60
    visitor = site.visitor()
    pages = [visitor.submit("/?n=2")]
    site.pair.lag = 0
    had_it: list[bool] = []  # whether the slave had the write before the page was asked for
    while len(had_it) < 10 or not all(had_it[-10:]):
        had_it.append("2" in site.on("slave").split())
        pages.append(visitor.get())
        time.sleep(0.02)
    assert {page.text for page in pages} == {"1 2"}
    assert pages[0].side == "master"
    assert [page.side for page, safe in zip(pages[1:], had_it, strict=True) if safe] == ["slave"] * sum(had_it)


def test_other_visitors_read_from_the_slave_during_the_lag(site: Site, new_visitor: Visitors) -> None:
    site.pair.stop_slave()
    new_visitor().post("/?n=2")
    pages = [new_visitor().get() for _ in range(3)]
    site.assert_lagged()
    assert [(page.text, page.side) for page in pages] == [("1", "slave")] * 3


def test_m1_a_get_after_a_post_without_a_redirect_sees_the_write(site: Site, new_visitor: Visitors) -> None:
    def api(request: HttpRequest) -> HttpResponse:
        if request.method == "POST":
            write(request.GET["n"])
            return HttpResponse(json.dumps({"n": request.GET["n"]}), "application/json", int(request.GET["n"]))
        return HttpResponse(json.dumps(shown().split()), "application/json")

    site.serve(api=api)
    site.pair.stop_slave()
    for number, status in enumerate((200, 201, 204, 422, 500), 2):
        visitor = new_visitor()
        assert visitor.post(f"/api?n={status}").status == status
        pages = [visitor.get("/api") for _ in range(2)]
        site.assert_lagged(status)
        assert [len(json.loads(page.text)) for page in pages] == [number] * 2


def test_m3_a_page_and_its_parallel_xhrs_after_a_redirect_see_the_write(site: Site, new_visitor: Visitors) -> None:
    site.pair.stop_slave()
    visitor = new_visitor()
    visitor.post("/?n=2")
    together = threading.Barrier(4)
    pages: list[Page] = []
    errors: list[Exception] = []

    def fetch() -> None:
        same = Visitor(visitor.door, dict(visitor.jar))
        try:
            for _ in range(3):
                together.wait(10)
                pages.append(same.get())
        except Exception as error:  # noqa: BLE001 - the test reports it
            errors.append(error)
            together.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    site.assert_lagged()
    assert errors == []
    assert [page.text for page in pages] == ["1 2"] * 12


def test_m5_a_forged_cookie_is_ignored(site: Site, new_visitor: Visitors) -> None:
    for value in ("true", "1", "master", "", "eyJ0IjoxfQ.AAAA", "." * 5000):
        page = new_visitor().get(Cookie=f"just_updated={value}; just_updated_1={value}")
        assert (page.status, page.side, page.markers) == (200, "slave", [])


def test_r2_a_client_header_does_not_choose_the_state(site: Site, new_visitor: Visitors) -> None:
    for header in ("X_Replicated_State", "Replswitch", "Just_Updated"):
        page = new_visitor().post("/?n=2", **{header: "slave"})
        assert (page.status, page.side) == (302, "master")
        assert new_visitor().get(**{header: "master"}).side == "slave"
    assert site.on("master") == "1 2 2 2"


def create(request: HttpRequest) -> HttpResponse:
    write(2)
    return answer(shown())


def save(request: HttpRequest) -> HttpResponse:
    message = Message.objects.get(body="1")  # from the slave, outside a transaction
    message.body = "2"
    message.save()
    return answer(shown())


def get_or_create(request: HttpRequest) -> HttpResponse:
    Message.objects.get_or_create(body="2")
    return answer(shown())


def update_or_create(request: HttpRequest) -> HttpResponse:
    Message.objects.update_or_create(body="1", defaults={"body": "2"})
    return answer(shown())


def raw_cursor(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO project_message (body) VALUES (%s)", ["2"])
    return answer(shown())


WRITING = (create, save, get_or_create, update_or_create, raw_cursor)


def test_s8_a_get_that_writes_moves_to_the_master_and_is_marked(
    site: Site, new_visitor: Visitors, caplog: pytest.LogCaptureFixture
) -> None:
    for view in WRITING:
        Message.objects.all().delete()
        write(1)
        site.pair.lag = 0
        site.pair.wait_caught_up()
        site.serve(view=view)
        site.pair.lag = 60
        visitor = new_visitor()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "replswitch"):
            page = visitor.get("/view")
        site.assert_lagged()
        assert page.status == 200
        assert page.text.endswith("2")
        assert page.told.endswith("reason=moved-write")
        (record,) = [record for record in caplog.records if record.name.startswith("replswitch")]
        assert "A write in slave state was moved to the master" in record.getMessage()
        assert len(page.markers) == 1
        assert visitor.get().text == page.text
        site.assert_lagged()


def test_s8_the_warning_of_a_moved_write_names_the_line_of_the_application(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.serve(view=get_or_create)
    with caplog.at_level(logging.WARNING, "replswitch"):
        site.visitor().get("/view")
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("replswitch")]
    assert f"{__file__}:" in message
    assert " in get_or_create." in message


def test_a_get_that_writes_its_session_with_django_s_engine_moves(
    site: Site, new_visitor: Visitors, caplog: pytest.LogCaptureFixture
) -> None:
    def count(request: HttpRequest) -> HttpResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return answer(request.session["visits"])

    site.sessions("django.contrib.sessions.backends.db")
    site.serve(count=count)
    site.pair.stop_slave()
    visitor = new_visitor()
    with caplog.at_level(logging.WARNING, "replswitch"):
        assert [visitor.get("/count").text for _ in range(3)] == ["1", "2", "3"]
    assert any("moved to the master" in record.getMessage() for record in caplog.records)


def test_a_get_that_writes_its_session_stays_on_the_slave_without_warning(
    site: Site, new_visitor: Visitors, caplog: pytest.LogCaptureFixture
) -> None:
    def count(request: HttpRequest) -> HttpResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return answer(request.session["visits"])

    site.sessions()
    site.serve(count=count)
    site.pair.stop_slave()
    visitor = new_visitor()
    with caplog.at_level(logging.WARNING, "replswitch"):
        assert [visitor.get("/count").text for _ in range(3)] == ["1", "2", "3"]
    assert [record for record in caplog.records if record.name.startswith("replswitch")] == []
    assert list(visitor.jar) == ["sessionid"]


def test_s8_a_get_that_writes_after_a_read_of_its_transaction_raises_if_replay_is_not_possible(
    site: Site, new_visitor: Visitors
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        try:
            with transaction.atomic():
                message = Message.objects.get(body="1")
                message.tags.set([])  # reads, and has nothing to write
                message.tags.set([Tag.objects.create(name="new")])
        except SlaveWriteError as error:
            return answer(error, 409)
        return answer("written")

    site.serve(view=view)
    site.options(REPLAY=False)
    page = new_visitor().get("/view")
    assert page.status == 409
    assert "may be stale" in page.text
    assert page.markers == []
    assert Tag.objects.count() == 0
    assert new_visitor().post("/view").text == "written"


def test_r3_a_decorated_view_called_inside_a_request_restores_its_state(site: Site, new_visitor: Visitors) -> None:
    @use_slave
    def part(request: HttpRequest) -> HttpResponse:
        return answer(connection.state)

    @use_slave
    def failing(request: HttpRequest) -> HttpResponse:
        raise LookupError(connection.state)

    def whole(request: HttpRequest) -> HttpResponse:
        states = [connection.state, part(request).content.decode(), connection.state]
        with pytest.raises(LookupError, match="slave"):
            failing(request)
        states.append(connection.state)
        write(2)
        return answer(states)

    site.serve(whole=whole)
    page = new_visitor().post("/whole")
    assert page.text == str(["master", "slave", "master", "master"])
    assert (page.side, len(page.markers)) == ("master", 1)
    assert site.on("master") == "1 2"


@pytest.mark.parametrize(("method", "found"), [("GET", "1"), ("POST", "1 2")], ids=["GET", "POST"])
def test_s9_a_streaming_response_reads_in_the_state_of_its_request(
    site: Site, new_visitor: Visitors, method: str, found: str
) -> None:
    def stream(request: HttpRequest) -> StreamingHttpResponse:
        def pieces() -> Iterator[str]:
            for _ in range(3):
                yield f"{shown()};"

        return StreamingHttpResponse(pieces())

    async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
        async def pieces() -> AsyncIterator[str]:
            for _ in range(3):
                yield " ".join([body async for body in Message.objects.order_by("id").values_list("body", flat=True)])
                yield ";"

        return StreamingHttpResponse(pieces())

    site.serve(stream=stream, stream_async=stream_async)
    site.pair.stop_slave()
    write(2)
    visitor = new_visitor()
    is_async = "through_asgi" in repr(visitor.door)
    page = visitor.send(method, "/stream_async" if is_async else "/stream")
    site.assert_lagged()
    assert page.text == f"{found};" * 3


@only_mariadb
def test_p1_requests_that_read_and_write_send_no_extra_statement(site: Site) -> None:
    @use_slave
    def both(request: HttpRequest) -> HttpResponse:
        if request.method == "POST":
            with use_master():
                write(request.GET["n"])
        return answer(shown())

    site.serve(both=both)
    for visit in (site.visitor().get, site.visitor().get):
        visit("/both")
    site.visitor().submit("/?n=2")
    site.pair.stop_slave()
    site.visitor().post("/both?n=5")  # all links are open from here on
    site.pair.start_slave()
    site.pair.wait_caught_up()
    with ExitStack() as recording:
        master = recording.enter_context(site.pair.statements("master"))
        slave = recording.enter_context(site.pair.statements("slave"))
        site.visitor().get()
        visitor = site.visitor()
        visitor.post("/?n=3")
        site.pair.wait_caught_up()
        visitor.get()
        visitor.get()
        site.visitor().get("/both")
        site.pair.stop_slave()
        site.visitor().post("/both?n=4")
    read = "SELECT `project_message`.`body` AS `body` FROM `project_message` ORDER BY `project_message`.`id` ASC"
    insert = "INSERT INTO `project_message` (`body`) VALUES ('{}') RETURNING `project_message`.`id`"
    # mysqlclient does not tell whether a statement has written: the master is asked, once for what has run since.
    ask = [] if tells_of_writes() else ["SELECT @@SESSION.last_gtid"]
    assert master == [insert.format(3), *ask, insert.format(4), *ask, read]
    where = (
        "SELECT @@GLOBAL.gtid_current_pos, IF(@@GLOBAL.log_slave_updates, @@GLOBAL.gtid_binlog_pos, NULL),"
        " @@server_id, @@hostname"
    )
    assert slave == [read, where, read, read, read, where]


def tells_of_writes() -> bool:
    """Whether the driver says of each commit whether it wrote."""
    return bool(connection.Database.__name__ == "pymysql")


def test_a_request_without_a_query_opens_no_connection(site: Site) -> None:
    site.serve(state=lambda request: answer(connection.state))
    connection.close()
    with ExitStack() as recording:
        master = recording.enter_context(site.pair.statements("master"))
        slave = recording.enter_context(site.pair.statements("slave"))
        assert site.visitor().get("/state").text == "slave"
        assert site.visitor().post("/state").text == "master"
    assert master == slave == []
    assert site.has_no_links("master", "slave")


def test_s2_nested_use_master_blocks_restore_the_state(site: Site, new_visitor: Visitors) -> None:
    def nested(request: HttpRequest) -> HttpResponse:
        states = []
        with use_master():
            with use_master():
                states.append(connection.state)
            with connection.use_slave(), connection.use_master():
                states.append(connection.state)
            states.append(connection.state)
        return answer([*states, connection.state])

    site.serve(nested=nested)
    for _ in range(2):
        assert new_visitor().get("/nested").text == str(["master", "master", "master", "slave"])
        assert new_visitor().get().side == "slave"


def test_raw_cursors_and_related_managers_run_in_the_state_of_the_request(site: Site, new_visitor: Visitors) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        message = Message.objects.get(body="1")
        if request.method == "POST":
            message.reply_set.create(body="reply")
            message.tags.create(name="tag")
            message.attachments.create(name="attachment")
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM project_reply")
            ((replies,),) = cursor.fetchall()
        related = (message.reply_set, message.tags, message.attachments, Reply.objects)
        return answer([replies, *(manager.count() for manager in related)])

    site.serve(view=view)
    site.pair.stop_slave()
    visitor = new_visitor()
    assert visitor.post("/view").text == "[1, 1, 1, 1, 1]"
    assert visitor.get("/view").text == "[1, 1, 1, 1, 1]"
    stranger = new_visitor().get("/view")
    assert (stranger.text, stranger.side) == ("[0, 0, 0, 0, 0]", "slave")


TEST_RUN = """
import sys
import django

django.setup()
from django.core.management import call_command
from django.db import connection
from django.test import TestCase
from django.test.runner import DiscoverRunner

from tests.test_django.project.models import Message
from tests.test_django.requests.board import board


class OneAlias(TestCase):
    databases = {"default"}

    @classmethod
    def setUpTestData(cls):
        Message.objects.create(body="data")

    def test_pages_and_slave_state_show_the_rows_of_the_test_run(self):
        assert connection.settings_dict["NAME"] == "test_shop"
        with connection.use_slave():
            assert Message.objects.get().body == "data"
        assert self.client.post("/?n=2").status_code == 302
        assert self.client.get("/").content == b"data 2"


class Runner(DiscoverRunner):
    def build_suite(self, *args, **kwargs):
        return self.test_loader.loadTestsFromTestCase(OneAlias)


from django.test import override_settings
from django.urls import path

with override_settings(ROOT_URLCONF=(path("", board),)):
    failed = Runner(verbosity=0, interactive=False).run_tests([])
print("failed", failed)
"""


def test_a_django_test_run_needs_one_alias_only(site: Site, run_python: RunPython) -> None:
    site.pair.stop_slave()
    assert "failed 0" in run_python(TEST_RUN)


@pytest.fixture(scope="module")
def two_slaves() -> Iterator[Pair]:
    with (PostgreSQLPair if IS_POSTGRESQL else MariaDBPair)(slaves=2) as pair:
        with closing(pair.connect()) as plain:
            dialect.run(plain, "CREATE TABLE project_message (id SERIAL PRIMARY KEY, body VARCHAR(100))")
            dialect.run(plain, "INSERT INTO project_message (body) VALUES ('1')")
        pair.wait_caught_up()
        yield pair


@pytest.fixture
def wide_site(django_pair: Pair, two_slaves: Pair) -> Iterator[Site]:
    """The board with one message, on a pair with two slaves."""
    two_slaves.reset()
    slaves = [{"PORT": slave["port"]} for slave in two_slaves.slaves]
    with (
        default_with(*slaves, PORT=two_slaves.master["port"], PASSWORD=two_slaves.password),
        ExitStack() as exits,
    ):
        yield Site(two_slaves, exits)


def ports(request: HttpRequest) -> HttpResponse:
    """Say which server each of some reads came from."""
    asked = []
    for _ in range(3):
        shown()
        asked.append(ask(connection, "SELECT @@port"))
    return answer(" ".join(map(str, asked)))


@pytest.mark.parametrize("door", [through_wsgi, through_asgi])
def test_s6_all_reads_of_a_request_are_on_one_of_two_slaves(wide_site: Site, door: Any) -> None:
    wide_site.serve(ports=ports)
    pages = [Visitor(door).get("/ports") for _ in range(30)]
    assert {page.side for page in pages} == {"slave"}
    assert all(len(set(page.text.split())) == 1 for page in pages), "torn pages"
    used = {int(page.text.split()[0]) for page in pages}
    assert used == {slave["port"] for slave in wide_site.pair.slaves}


def test_f1_when_one_of_two_slaves_is_killed_the_other_serves(wide_site: Site) -> None:
    wide_site.serve(ports=ports)
    with live_server() as live:
        for door in (through_wsgi, through_asgi, live):
            assert Visitor(door).get("/ports").side == "slave"  # links may be open from here on
        wide_site.pair.kill("slave")
        left = str(wide_site.pair.slaves[1]["port"])
        for door in (through_wsgi, through_asgi, live):
            pages = [Visitor(door).get("/ports") for _ in range(10)]
            assert [(page.status, page.text) for page in pages] == [(200, " ".join([left] * 3))] * 10


def test_f2_a_killed_slave_serves_again_after_its_restart(site: Site, new_visitor: Visitors) -> None:
    visitor = new_visitor()
    assert visitor.get().side == "slave"
    site.pair.kill("slave")
    pages = [visitor.get() for _ in range(30)]
    assert [(page.status, page.text) for page in pages] == [(200, "1")] * 30
    assert {page.sides[-1] for page in pages} == {"master"}
    assert [page.markers for page in pages] == [[]] * 30
    site.pair.start("slave")
    until = time.monotonic() + 60  # the option downtime, and some
    while visitor.get().side != "slave":
        assert time.monotonic() < until, "the slave is back, and gets no reads"
        time.sleep(0.05)


def test_f1_a_slave_killed_during_a_request_fails_no_read(site: Site) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        before = shown()
        site.pair.kill("slave")
        return answer(f"{before};{shown()};{connection.state}")

    site.serve(view=view)
    page = site.visitor().get("/view")
    assert (page.text, page.sides) == ("1;1;slave", ["slave", "master"])
