"""Tests of a project that use `ReplicationTestMixin`: see test_production_routing.py, which runs them."""

# ruff: noqa: PT009, PT027 - they are unittest's

from __future__ import annotations

from typing import Any

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import TestCase, TransactionTestCase, override_settings
from django.urls import path
from tests.test_django.project.models import Message, Tag

from django_replswitch.decorators import use_master, use_slave
from django_replswitch.test import ReplicationTestMixin, production_routing
from replswitch import MASTER, SLAVE, SlaveWriteError

db: Any = connection


def shown() -> list[str]:
    return list(Message.objects.order_by("pk").values_list("body", flat=True))


def board(request: HttpRequest) -> HttpResponse:
    return HttpResponse(" ".join(shown()))


@use_master
def stock(request: HttpRequest) -> HttpResponse:
    return board(request)


def visit(request: HttpRequest) -> HttpResponse:
    """Write after a read, in one transaction."""
    with transaction.atomic():
        number = Message.objects.count()
        Message.objects.create(body=f"visit {number}")
    return HttpResponse(" ".join(shown()))


def visit_twice(request: HttpRequest) -> HttpResponse:
    """Commit something first."""
    with use_master(), transaction.atomic():
        Tag.objects.create(name="visited")
    return visit(request)


def visit_after_a_failure(request: HttpRequest) -> HttpResponse:
    """Roll something back first."""
    try:
        with use_master(), transaction.atomic():
            Tag.objects.create(name="visited")
            raise ValueError
    except ValueError:
        return visit(request)


urlpatterns = [
    path("", board),
    path("stock/", stock),
    path("visit/", visit),
    path("visit-twice/", visit_twice),
    path("visit-after-a-failure/", visit_after_a_failure),
]


@override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
class ShowsProduction(ReplicationTestMixin, TestCase):
    """In slave state the database refuses writes, and the test's rows are seen."""

    @classmethod
    def setUpTestData(cls) -> None:
        Message.objects.create(body="of the class")

    def setUp(self) -> None:
        Message.objects.create(body="of the test")

    def test_slave_state_sees_the_rows_of_the_test(self) -> None:
        with self.assert_reads_on("slave") as reads, use_slave():
            self.assertEqual(shown(), ["of the class", "of the test"])
            self.assertEqual([each.body for each in Message.objects.order_by("pk").iterator()], shown())
        self.assertEqual({each.statement.database for each in reads.right}, {"default"})
        with self.assert_reads_on("master"):
            shown()

    def test_a_request_that_reads_runs_on_a_slave(self) -> None:
        with self.assert_reads_on("slave", "default"):
            self.assertEqual(self.client.get("/").content, b"of the class of the test")
        wrong = self.assertRaisesRegex(AssertionError, r"reason use_master, database default\n.*\n.* in shown")
        with wrong, self.assert_reads_on("slave"):
            self.client.get("/stock/")

    def test_a_write_in_slave_state_is_refused_and_moves_with_a_warning(self) -> None:
        with use_slave(), self.assertLogs("replswitch.servers", "WARNING") as logs:
            shown()
            Message.objects.create(body="moved")
            self.assertEqual(shown()[-1], "moved")
            with self.assert_reads_on("master") as reads:
                shown()
        self.assertEqual(reads.right[0].statement.reason, "moved-write")
        self.assertIn("A write in slave state was moved to the master", logs.output[0])
        self.assertIn("in_production_routing.py", logs.output[0])

    def test_a_write_of_several_rows_in_slave_state_moves(self) -> None:
        with use_slave(), self.assertLogs("replswitch.servers", "WARNING"):
            Tag.objects.bulk_create(Tag(name=name) for name in "abc")
            self.assertEqual(Tag.objects.count(), 3)

    @override_settings(REPLSWITCH={"ON_SLAVE_WRITE": "error"})
    def test_the_options_of_a_test_apply(self) -> None:
        with use_slave(), self.assertRaises(SlaveWriteError):
            Message.objects.create(body="refused")
        self.assertEqual(len(shown()), 2)

    def test_a_transaction_that_has_read_nothing_moves_as_a_whole(self) -> None:
        with use_slave(), self.assertLogs("replswitch.servers", "WARNING"), transaction.atomic():
            Message.objects.create(body="moved")
            self.assertEqual(len(shown()), 3)

    def test_a_write_in_a_transaction_after_a_read_is_an_error(self) -> None:
        with use_slave(), self.assertRaises(SlaveWriteError), transaction.atomic():
            shown()
            Message.objects.create(body="refused")
        self.assertEqual(len(shown()), 2)
        with use_slave(), transaction.atomic():  # nothing is left of it
            self.assertEqual(len(shown()), 2)

    def test_a_request_whose_write_cannot_move_runs_again_on_the_master(self) -> None:
        with self.assertLogs("replswitch", "WARNING") as logs:
            response = self.client.get("/visit/")
        self.assertEqual(response.content, b"of the class of the test visit 2")
        self.assertIn("visit", "".join(logs.output))
        with self.assert_reads_on("master"):  # the endpoint has been learned
            self.client.get("/visit/")

    def test_a_request_that_has_committed_before_does_not_run_again(self) -> None:
        with self.assertRaises(SlaveWriteError):
            self.client.get("/visit-twice/")
        self.assertEqual(Tag.objects.count(), 1)

    def test_a_request_that_has_rolled_back_before_runs_again(self) -> None:
        with self.assertLogs("replswitch", "WARNING"):
            self.assertEqual(self.client.get("/visit-after-a-failure/").status_code, 200)
        self.assertEqual(Tag.objects.count(), 0)

    def test_once_the_master_has_joined_it_serves_the_transaction(self) -> None:
        with transaction.atomic():
            Message.objects.create(body="new")
            with use_slave(), self.assert_reads_on("master") as reads:
                self.assertEqual(len(shown()), 3)
        self.assertEqual(reads.right[0].statement.reason, "transaction")
        with use_slave(), self.assert_reads_on("slave"):
            self.assertEqual(len(shown()), 3)

    def test_the_rows_of_a_block_that_is_rolled_back_are_gone(self) -> None:
        with use_slave(), transaction.atomic():
            self.assertEqual(len(shown()), 2)
            try:
                with use_master(), transaction.atomic():
                    Message.objects.create(body="new")
                    raise ValueError
            except ValueError:
                pass
            with self.assert_reads_on("slave"):
                self.assertEqual(len(shown()), 2)

    def test_a_block_without_a_savepoint_is_rolled_back_as_a_transaction(self) -> None:
        with self.assertRaises(ValueError), transaction.atomic(savepoint=False):
            Message.objects.create(body="new")
            raise ValueError
        self.assertEqual(len(shown()), 2)

    def test_select_for_update_in_slave_state_runs_on_the_master(self) -> None:
        with use_slave(), transaction.atomic():
            Message.objects.select_for_update().get(body="of the test")
            expected = MASTER if db.features.has_select_for_update else SLAVE
            self.assertEqual(db.served_by()["db"], expected)

    def test_a_second_block_of_production_routing_does_not_end_the_first(self) -> None:
        with production_routing(), use_slave(), self.assert_reads_on("slave"):  # in use already, so it does nothing
            shown()
        with use_slave(), self.assert_reads_on("slave"):
            shown()


class IsAsItWas(TestCase):
    """Without the mixin, the master serves everything; a block may change that."""

    def test_a_block_of_production_routing_leaves_the_connection_as_it_was(self) -> None:
        Message.objects.create(body="new")
        before = vars(db).keys() - {"route"}
        with use_slave():
            self.assertEqual((len(shown()), db.served_by()["db"]), (1, MASTER))
            with production_routing():
                self.assertEqual((len(shown()), db.served_by()["db"]), (1, SLAVE))
            self.assertEqual((len(shown()), db.served_by()["db"]), (1, MASTER))
        self.assertEqual(vars(db).keys() - {"route"}, before)
        self.assertIs(type(db.atomic_blocks), list)
        self.assertEqual(db.execute_wrappers, [])

    def test_the_rows_of_an_earlier_test_are_gone(self) -> None:
        self.assertEqual(shown(), [])


class ReallyReadsFromTheSlave(ReplicationTestMixin, TransactionTestCase):
    """Outside the transaction of a TestCase, nothing changes."""

    def test_slave_state_in_a_transaction_test_case_reads_the_slave(self) -> None:
        with use_slave(), self.assert_reads_on("slave"):
            shown()
