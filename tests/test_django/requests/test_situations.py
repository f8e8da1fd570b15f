"""The situations that replswitch is made for, end to end, through each door and with a slave that really lags."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import TestCase
from tests.test_django.project.models import Message
from tests.test_django.requests.board import answer, board, connection, connections, shown, write

from django_replswitch.decorators import use_master, use_slave
from replswitch import RevertError

if TYPE_CHECKING:
    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors


def test_r1_a_get_is_served_by_the_slave(site: Site, new_visitor: Visitors) -> None:
    site.pair.stop_slave()
    write(2)  # by another application
    page = new_visitor().get()
    site.assert_lagged()
    assert (page.text, page.side) == ("1", "slave")
    slave = site.pair.slaves[0]
    assert page.told == f"slave; server={slave['host']}:{slave['port']}; reason=method"


def test_r1_every_http_method_has_its_state(site: Site) -> None:
    site.serve(root=lambda request: answer(shown()))
    site.pair.stop_slave()
    write(2)
    for method in ("HEAD", "OPTIONS", "TRACE", "QUERY"):
        assert site.visitor().send(method).side == "slave"
    for method in ("POST", "PUT", "PATCH", "DELETE", "PURGE"):
        page = site.visitor().send(method)
        assert (page.text, page.side) == ("1 2", "master")
    site.assert_lagged()


def test_r1_a_post_is_served_by_the_master(site: Site, new_visitor: Visitors) -> None:
    site.pair.stop_slave()
    page = new_visitor().post("/?n=2")
    site.assert_lagged()
    assert (page.status, page.side) == (302, "master")
    assert len(page.markers) == 1


def test_m1_a_get_after_a_post_sees_the_write(site: Site, new_visitor: Visitors) -> None:
    site.pair.stop_slave()
    visitor = new_visitor()
    page = visitor.submit("/?n=2")
    site.assert_lagged()
    assert (page.text, page.side) == ("1 2", "master")
    assert page.told.endswith("reason=marker")
    assert new_visitor().get().text == "1"  # a stranger, from the slave
    site.assert_lagged()


def test_r3_a_decorator_overrides_the_middleware(site: Site, new_visitor: Visitors) -> None:
    @use_master
    def latest(request: HttpRequest) -> HttpResponse:
        return answer(shown())

    @use_slave
    def search(request: HttpRequest) -> HttpResponse:
        return answer(shown())

    site.serve(latest=latest, search=search)
    site.pair.stop_slave()
    write(2)
    assert new_visitor().get("/latest").text == "1 2"
    assert new_visitor().post("/search").text == "1"
    assert new_visitor().get().text == "1"
    site.assert_lagged()


def test_s2_use_and_revert_in_a_view_take_effect_at_once(site: Site, new_visitor: Visitors) -> None:
    def search(request: HttpRequest) -> HttpResponse:
        states = [connection.state]
        connection.use_slave()
        try:
            states += [connection.state, shown()]
            connection.use_master()
            states.append(connection.state)
            connection.revert()
            states.append(connection.state)
        finally:
            connection.revert()
        states.append(connection.state)
        with pytest.raises(RevertError):  # what the middleware did is not the view's to undo
            connection.revert()
        return answer(states)

    site.serve(search=search)
    site.pair.stop_slave()
    write(2)
    get, post = new_visitor().get("/search"), new_visitor().post("/search")
    site.assert_lagged()
    assert get.text == str(["slave", "slave", "1", "master", "slave", "slave"])
    assert post.text == str(["master", "slave", "1", "master", "slave", "master"])


def test_s3_use_without_revert_in_a_view_ends_with_the_request(site: Site, new_visitor: Visitors) -> None:
    def forgetful(request: HttpRequest) -> HttpResponse:
        connection.use_master()
        connections["other"].use_master()
        return answer(shown())

    site.serve(forgetful=forgetful)
    visitor = new_visitor()
    for _ in range(3):
        assert visitor.get("/forgetful").side == "master"
        visitor.jar.clear()
        assert visitor.get().side == "slave"


def run_case(case: type[TestCase]) -> None:
    """Run a Django TestCase as Django's own runner would, on the pair's tables."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.wasSuccessful(), "".join(text for _, text in result.errors + result.failures)
    assert result.testsRun > 0


@pytest.mark.parametrize("disabled", [False, True])
def test_a_testcase_sees_its_own_data_in_slave_state(site: Site, *, disabled: bool) -> None:
    site.pair.stop_slave()

    class BoardTest(TestCase):
        databases = {"default"}  # noqa: RUF012 - as Django has it

        @classmethod
        def setUpTestData(cls) -> None:
            write("data")

        def setUp(self) -> None:
            connection.state_change_disabled = disabled
            self.addCleanup(setattr, connection, "state_change_disabled", False)

        def test_pages_and_slave_state_show_the_rows_of_the_test(self) -> None:
            wanted = "master" if disabled else "slave"
            write("more")
            assert shown() == "1 data more"
            with connection.use_slave(), use_slave():
                assert connection.state == wanted
                assert shown() == "1 data more"
            assert self.client.get("/").content == b"1 data more"
            assert self.client.post("/?n=posted").status_code == 302
            assert self.client.get("/").content == b"1 data more posted"

        def test_nothing_is_left_of_the_other_test(self) -> None:
            assert self.client.get("/").content == b"1 data"
            assert Message.objects.count() == 2

        def test_reverts_stay_balanced(self) -> None:
            connection.use_slave()
            connection.use_master()
            assert connection.state == "master"
            connection.revert()
            connection.revert()
            with pytest.raises(RevertError):
                connection.revert()

    run_case(BoardTest)
    assert site.on("master") == "1"


def test_disabled_switching_keeps_every_request_on_the_master(site: Site) -> None:
    site.pair.stop_slave()
    connection.state_change_disabled = True
    try:
        write(2)
        assert site.visitor().get().text == "1 2"
        site.serve(search=use_slave(board))
        assert site.visitor().get("/search").text == "1 2"
        site.assert_lagged()
    finally:
        connection.state_change_disabled = False
    assert site.visitor().get().text == "1"
    site.assert_lagged()
