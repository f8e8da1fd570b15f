"""What the bindings of job queues share, without a queue."""

from __future__ import annotations

import json
import time
from math import inf
from typing import Any

import pytest

from replswitch import MASTER, SLAVE, ConfigurationError, Connection, Switch, resume
from replswitch.decorators import use_master, use_slave
from replswitch.jobs import Jobs, job_option, option_of
from replswitch.outside import Outside
from replswitch.positions import MySQLPosition, SQLitePosition
from replswitch.request.marker import Marker, dump, load
from replswitch.state import stack
from replswitch.testing import ReplicatedPair


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    Outside.wrote()  # so that nothing is left to merge
    monkeypatch.setattr(Outside, "merged", Marker())
    monkeypatch.setattr(Outside, "may_have_written_at", 0)


def token_of(marker: Marker) -> str:
    return json.dumps(dump(marker))


@pytest.mark.parametrize("token", ["x", "[]", "null", 7, b"\xff", {"at": 1}, ["x"], '{"at": 1}', "[" * 100_000])
def test_m9_a_job_with_a_broken_token_runs_in_master_state(token: object, caplog: pytest.LogCaptureFixture) -> None:
    with Jobs().running(token):
        assert Switch().state == MASTER
    assert "The master serves a job, because the token of the job cannot be read." in caplog.text
    assert stack() is None


@pytest.mark.parametrize(("age", "state"), [(3500, MASTER), (3700, SLAVE)])
def test_m9_a_position_in_a_token_expires_after_position_max_age(age: float, state: str) -> None:
    token = token_of(Marker(positions={"shop": SQLitePosition(1)}, placed_at=time.time() - age))
    with Jobs().running(token):
        assert (Jobs().token() != "") == (state == MASTER)


def test_m9_a_job_with_several_tokens_sees_the_writes_of_each_token() -> None:
    one, two = (token_of(Marker(positions={name: SQLitePosition(7)}, placed_at=time.time())) for name in ("a", "b"))
    with Jobs().running(None, one, "", two):
        assert set(load(json.loads(Jobs().token())).positions) == {"a", "b"}


@pytest.mark.parametrize(
    ("tokens", "options", "state"),
    [
        ([None], [], MASTER),
        ([None], [None, None], MASTER),
        ([None], [None, "sticky"], SLAVE),
        ([None], [{"wait": 1}], SLAVE),
        ([""], [], SLAVE),
        (["", None], [], SLAVE),
        ([None, ""], [], MASTER),
        ([], [], SLAVE),
    ],
)
def test_m9_the_master_serves_a_job_whose_message_has_no_token_unless_the_job_has_an_option(
    tokens: list[Any], options: list[Any], state: str
) -> None:
    with Jobs().running(*tokens, options=options):
        assert Switch().state == state


@pytest.mark.parametrize(
    ("token", "options", "age", "state"),
    [
        (None, [], 9, MASTER),
        (None, ["master"], 9, MASTER),
        (None, [], 11, SLAVE),
        (None, ["sticky"], 9, SLAVE),
        ("broken", [], 9, MASTER),
        ("broken", ["sticky"], 9, MASTER),
        ("", ["master"], 9, SLAVE),
    ],
)
def test_m9_what_a_job_without_a_readable_token_starts_runs_on_the_master_for_max_age(
    token: str | None, options: list[Any], age: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, now = Jobs(), time.time()
    with jobs.running(token, options=options):
        started = jobs.token()
    monkeypatch.setattr(time, "time", lambda: now + age)
    with jobs.running(started):
        assert Switch().state == state


def test_m9_use_slave_applies_in_a_job_without_a_token() -> None:
    with Jobs().running(None), use_slave():
        assert Switch().state == SLAVE


@pytest.mark.parametrize(
    "option", ["slave", 3, {"wait": 0}, {"wait": True}, {"wait": "3"}, {"wait": inf}, {}, {"wait": 1, "x": 2}]
)
def test_a_wrong_option_of_a_job_is_refused(option: Any) -> None:
    for give in (job_option, Jobs):
        with pytest.raises(ConfigurationError, match=r'The option "replswitch" is .* "master", "sticky" or {"wait"'):
            give(option)


@pytest.mark.parametrize("name", ["max_age", "position_max_age"])
@pytest.mark.parametrize("value", [0, "10", True])
def test_a_wrong_age_of_a_job_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f'The option "{name}" is '):
        Jobs(**{name: value})


def test_m9_the_first_option_that_is_given_applies() -> None:
    @job_option("master")
    def work() -> None: ...

    jobs = Jobs()
    for options, state in (((), SLAVE), ((None, option_of(work)), MASTER), (({"wait": 2}, option_of(work)), SLAVE)):
        with jobs.running("", options=options):
            assert Switch().state == state
    with Jobs("master").running(""):
        assert Switch().state == MASTER


def test_m9_a_job_sees_what_was_written_outside_any_request(db: Connection, replicated_pair: ReplicatedPair) -> None:
    replicated_pair.stop_slave()
    with db.cursor() as cursor:
        cursor.execute("INSERT INTO message (id, body) VALUES (1, 'hello')")
    outside = Jobs().token()
    with use_slave():
        assert Jobs().token() == outside
    with use_master(), db.cursor() as cursor:  # a block that ends before the job is started
        cursor.execute("INSERT INTO message (id, body) VALUES (2, 'hello')")
    with resume(""):
        assert Jobs().token() == ""
    for token, least in ((outside, 1), (Jobs().token(), 2)):
        with Jobs().running(token), db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM message")
            assert cursor.fetchone()[0] >= least


def test_m9_a_job_sees_all_of_many_writes_outside_any_request() -> None:
    places = [MySQLPosition.parse(f"3e11fa47-71ca-11e1-9e33-c80aa9429562:{2 * number}") for number in range(1, 251)]
    for place in places:
        Outside.record("shop", place)
    Outside.record("log", None)
    for wrote in Outside.wrote(), Outside.wrote():
        assert all(wrote.positions["shop"].includes(place) for place in places)
        assert wrote.written_at is not None


def test_m9_a_job_sees_the_writes_whose_merge_was_interrupted_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit of Celery raises its error in the middle of any function."""

    def interrupted(*_: object) -> Marker:
        raise KeyboardInterrupt

    place = SQLitePosition(7)
    Outside.record("shop", place)
    with monkeypatch.context() as patched:
        patched.setattr(Marker, "with_writes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Jobs().token()
    assert load(json.loads(Jobs().token())).positions == {"shop": place}


def test_m9_the_master_serves_the_transactions_of_a_job(db: Connection) -> None:
    def count() -> tuple[str, str]:
        with db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM message")
            cursor.fetchall()
        return db.queries[-1]["db"], db.queries[-1]["reason"]

    with Jobs().running(""):
        assert count() == (SLAVE, "job")
        db.begin()
        assert count() == (MASTER, "transaction")
        db.commit()
        assert count() == (SLAVE, "job")
        with use_slave():
            db.begin()
            assert count() == (SLAVE, "use_slave")
            db.commit()
