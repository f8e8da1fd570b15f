"""The tasks of the tests with Celery."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from tests.test_jobs import board

import replswitch.celery
from replswitch.decorators import use_slave

ADDRESS = f"redis+socket://{os.environ[board.REDIS]}"

app = Celery("tests", broker=ADDRESS, backend=ADDRESS)
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False, result_expires=60)
replswitch.celery.install(app)
db = board.connect()


@app.task
def insert(number: int) -> None:
    board.insert(db, number)


@app.task
def seen(*numbers: int) -> board.Seen:
    return board.seen(db, *numbers)


@app.task(replswitch="master")
def seen_on_master(number: int) -> board.Seen:
    return board.seen(db, number)


@app.task(replswitch={"wait": 20})
def seen_after_a_wait(number: int) -> board.Seen:
    return board.seen(db, number)


@app.task(replswitch="slaves")
def seen_with_a_wrong_option(number: int) -> board.Seen:
    return board.seen(db, number)


@app.task
def seen_in_a_transaction(number: int) -> list[board.Seen]:
    db.begin()
    found = [board.seen(db, number)]
    board.insert(db, number + 1)
    db.commit()
    with use_slave():
        return [*found, board.seen(db, number)]


@app.task
def insert_and_call(number: int) -> str:
    board.insert(db, number)
    return str(seen.delay(number).id)


@app.task(bind=True, max_retries=1)
def insert_and_try_again(self: Any, number: int) -> board.Seen:
    if not self.request.retries:
        board.insert(db, number)
        raise self.retry(countdown=0)
    return board.seen(db, number)


@app.task(bind=True, max_retries=1)
def seen_at_second_try(self: Any, number: int) -> board.Seen:
    if not self.request.retries:
        raise self.retry(countdown=0)
    return board.seen(db, number)
