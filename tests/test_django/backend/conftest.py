"""Django's connections to the pair, with a log of their queries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from tests.test_django.backend.asking import connect, forget
from tests.test_django.project.dialect import Pair

Warnings = Callable[[], list[str]]


@pytest.fixture
def db(django_pair: Pair) -> Any:
    """The connection ``default``, which keeps its queries."""
    db: Any = connections["default"]
    assert db.get_database_version()  # Django asks the server for it once, and closes the connection again
    db.force_debug_cursor = True
    return db


@pytest.fixture
def persistent(db: Any) -> Iterator[Any]:
    """The connection ``default`` with links that outlive a request and are looked at by the next one."""
    db.settings_dict |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    yield db
    db.settings_dict |= {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}


@pytest.fixture
def make(db: Any) -> Iterator[Callable[..., Any]]:
    """Make connections like ``default``, with some other settings, under aliases of their own."""
    made: list[Any] = []

    def make(**settings: Any) -> Any:
        made.append(connect(**{**db.settings_dict, **settings}))
        return made[-1]

    yield make
    for connection in made:
        forget(connection)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Warnings:
    """The warnings that replswitch has logged so far."""
    caplog.set_level(logging.WARNING, "replswitch")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("replswitch")]
