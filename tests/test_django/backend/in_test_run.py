"""Tests that Django's own test runner runs, in a process of its own: see test_test_runs.py."""

# ruff: noqa: PT009 - they are unittest's

from __future__ import annotations

import time
from typing import Any
from urllib.request import urlopen

from django.db import Error, connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import LiveServerTestCase, TestCase, TransactionTestCase, override_settings
from django.urls import path
from tests.test_django.backend.asking import ask
from tests.test_django.project.models import Message, Reply

from django_replswitch.decorators import use_slave
from replswitch import MASTER, SLAVE

db: Any = connection


def wait_for_the_slave() -> None:
    """Until the test database has reached the slave."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with db.use_slave():
                Message.objects.exists()
            return
        except Error:
            db.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class SeesItsOwnData(TestCase):
    """The code under test reads in slave state the rows that the test has written."""

    message: Message

    @classmethod
    def setUpTestData(cls) -> None:
        cls.message = Message.objects.create(body="of the class")

    def setUp(self) -> None:
        Reply.objects.create(message=self.message, body="of the test")

    def check(self) -> None:
        Message.objects.create(body="new")
        with use_slave():
            self.assertEqual(Message.objects.count(), 2)
            self.assertEqual(Reply.objects.count(), 1)
            Message.objects.create(body="in slave state")
            with transaction.atomic():
                self.assertEqual(Message.objects.count(), 3)
        self.assertEqual(Message.objects.count(), 3)

    def test_the_rows_of_the_test_are_read_in_slave_state(self) -> None:
        self.check()

    def test_the_rows_of_the_test_are_read_in_slave_state_after_another_test(self) -> None:
        self.check()

    def test_the_rows_of_the_test_are_read_with_switching_disabled(self) -> None:
        db.state_change_disabled = True
        try:
            with db.use_slave():
                self.assertEqual(db.state, MASTER)
                self.check()
        finally:
            db.state_change_disabled = False

    def test_callbacks_of_on_commit_in_slave_state_are_captured_and_run(self) -> None:
        with use_slave(), self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: Message.objects.create(body="new"))
        self.assertEqual((len(callbacks), Message.objects.count()), (1, 2))

    def test_a_read_and_a_write_in_slave_state_are_two_queries(self) -> None:
        with self.assertNumQueries(2), use_slave():
            Message.objects.count()
            Message.objects.create(body="new")


class HasNoDataOfItsOwn(TestCase):
    """A test that begins in slave state does not decide what the next one may do."""

    @classmethod
    def setUpClass(cls) -> None:
        wait_for_the_slave()
        super().setUpClass()

    def test_1_the_first_test_in_slave_state_finds_no_rows(self) -> None:
        with use_slave():
            self.assertEqual(Message.objects.count(), 0)

    def test_2_a_test_in_slave_state_reads_its_own_write(self) -> None:
        with use_slave():
            Message.objects.create(body="new")
            self.assertEqual(Message.objects.count(), 1)

    def test_3_the_last_test_finds_no_rows_of_an_earlier_one(self) -> None:
        with use_slave():
            self.assertEqual(Message.objects.count(), 0)


class UsesTheTestDatabase(TransactionTestCase):
    """Every link does, and DDL and flushing go to the master."""

    databases = {"default", "other"}  # noqa: RUF012 - as Django has it

    def test_each_link_uses_the_test_database_of_its_alias(self) -> None:
        wait_for_the_slave()
        for alias, name in (("default", "test_shop"), ("other", "test_test_other")):
            each: Any = connections[alias]
            self.assertEqual(ask(each, "SELECT DATABASE()"), name)
            with each.use_slave():
                self.assertEqual(ask(each, "SELECT DATABASE(), @@tx_read_only"), (name, 1))

    def test_commits_reach_the_slave(self) -> None:
        wait_for_the_slave()
        Message.objects.create(body="new")
        deadline = time.monotonic() + 10
        with db.use_slave() as frame:
            while not Message.objects.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertEqual(Message.objects.get().body, "new")
            self.assertEqual(frame.scope.decisions[0].state, SLAVE)

    def test_the_database_is_empty_after_a_test_that_has_committed(self) -> None:
        self.assertEqual(Message.objects.count(), 0)


class SharesAMemory(TransactionTestCase):
    """SQLite in memory: another link would find another database."""

    databases = {"default", "other"}  # noqa: RUF012 - as Django has it

    def check(self) -> None:
        for alias in ("default", "other"):
            messages = Message.objects.using(alias)
            messages.create(body="new")
            with use_slave():
                self.assertEqual(messages.count(), 1)
                with transaction.atomic(using=alias):
                    self.assertEqual(messages.get().body, "new")
                    messages.create(body="newer")
            self.assertEqual(messages.count(), 2)

    def test_a_write_is_read_in_slave_state(self) -> None:
        self.check()

    def test_a_write_is_read_in_slave_state_after_another_test(self) -> None:
        self.check()


def board(request: HttpRequest) -> HttpResponse:
    """The messages."""
    return HttpResponse(" ".join(Message.objects.values_list("body", flat=True)))


urlpatterns = [path("", board)]


@override_settings(ROOT_URLCONF=__name__, STATIC_URL="static/")
class ServesAMemory(LiveServerTestCase):
    """SQLite in memory, shared with the threads of a live server, whose requests end."""

    def test_each_request_sees_the_rows_of_the_test(self) -> None:
        Message.objects.create(body="new")
        for _ in range(3):
            with urlopen(self.live_server_url) as response:
                self.assertEqual(response.read(), b"new")
        self.assertEqual(Message.objects.count(), 1)


class SharesAMemoryInABlock(SharesAMemory, TestCase):
    """The same in a TestCase."""
