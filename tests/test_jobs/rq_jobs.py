"""The jobs of the tests with RQ."""

from __future__ import annotations

from tests.test_jobs import board

from replswitch.rq import job_option

db = board.connect()


def insert(number: int) -> None:
    board.insert(db, number)


def seen(*numbers: int) -> board.Seen:
    return board.seen(db, *numbers)


@job_option("master")
def seen_on_master(number: int) -> board.Seen:
    return board.seen(db, number)


@job_option({"wait": 20})
def seen_after_a_wait(number: int) -> board.Seen:
    return board.seen(db, number)


def insert_and_fail_once(number: int) -> board.Seen:
    try:
        board.insert(db, number)
    except db.IntegrityError:  # the second try
        return board.seen(db, number)
    raise ValueError("the first try")


async def seen_in_a_coroutine(number: int) -> board.Seen:
    return board.seen(db, number)
