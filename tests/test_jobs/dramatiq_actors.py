"""The actors of the tests with Dramatiq."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as RateLimiterBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from tests.test_jobs import board

import replswitch.dramatiq

ADDRESS = f"unix://{os.environ[board.REDIS]}"

broker: Any = RedisBroker(url=ADDRESS)
broker.add_middleware(Results(backend=RedisBackend(url=ADDRESS), store_results=True))
broker.add_middleware(GroupCallbacks(RateLimiterBackend(url=ADDRESS)))
broker.add_middleware(AsyncIO())
broker.add_middleware(replswitch.dramatiq.ReplSwitch())
dramatiq.set_broker(broker)
db = board.connect()


@dramatiq.actor
def insert(number: int) -> None:
    board.insert(db, number)


@dramatiq.actor
def seen(*numbers: int) -> board.Seen:
    return board.seen(db, *numbers)


@dramatiq.actor
async def seen_in_a_coroutine(number: int) -> board.Seen:
    return board.seen(db, number)


@dramatiq.actor(replswitch="master")
def seen_on_master(number: int) -> board.Seen:
    return board.seen(db, number)


@dramatiq.actor(replswitch={"wait": 20})
def seen_after_a_wait(number: int) -> board.Seen:
    return board.seen(db, number)


@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=10)
def insert_and_fail_once(number: int) -> board.Seen:
    try:
        board.insert(db, number)
    except db.IntegrityError:  # the second try
        return board.seen(db, number)
    raise ValueError("the first try")


@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=10)
def seen_at_second_try(number: int) -> board.Seen:
    if broker.client.incr(f"tries-{number}") == 1:
        raise ValueError("the first try")
    return board.seen(db, number)


@dramatiq.actor
def store_seen(key: str, *numbers: int) -> board.Seen:
    found = board.seen(db, *numbers)
    broker.client.set(key, repr(found))
    return found
