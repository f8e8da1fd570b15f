"""Queries of the tests through the project's database, and directly on the servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.utils import ConnectionHandler
from tests.eventually import eventually
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair, translated
from tests.test_django.project.models import Message

# Django 6.1 has a new name for it, and deprecates the old one.
savepoint: Any = getattr(transaction, "savepoint_create", None) or transaction.savepoint

NEXT_ALIAS = iter(f"made{number}" for number in range(1_000_000))


def ask(db: Any, sql: str) -> Any:
    """The first row of an answer; a single value without its tuple."""
    with db.cursor() as cursor:
        cursor.execute(translated(sql))
        row = dialect.shown(db, cursor.fetchone() if cursor.description else None)
    return row[0] if row is not None and len(row) == 1 else row


def link_id(db: Any) -> int:
    """The server's number of the link that the state asks for."""
    return int(ask(db, "SELECT CONNECTION_ID()"))


def on(pair: Pair, server: str, sql: str) -> Any:
    """The rows on one server, over a separate connection."""
    with closing(pair.connect(server)) as plain:
        row = next(iter(dialect.run(plain, sql)), None)
    return row[0] if row is not None and len(row) == 1 else row


def bodies(pair: Pair, server: str = "master") -> list[str]:
    """The messages that one server has committed."""
    with closing(pair.connect(server)) as plain:
        return [row[0] for row in dialect.run(plain, "SELECT body FROM project_message ORDER BY id")]


def seen() -> list[str]:
    """The messages that the application sees."""
    return list(Message.objects.order_by("pk").values_list("body", flat=True))


def sides(db: Any) -> list[str]:
    """Where each statement was run, but for those that set connections up, and begin and end transactions."""
    quiet = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET SESSION")
    return [query["db"] for query in db.queries if not query["sql"].startswith(quiet)]


def links_on(pair: Pair, server: str) -> set[int]:
    """The application's links to a server."""
    return dialect.links_of(pair, server)


def has_no_links(pair: Pair, *servers: str) -> bool:
    """Whether the application has no link to these servers. They see a link closed a moment later, so ask again."""
    return eventually(lambda: not any(links_on(pair, server) for server in servers))


@contextmanager
def default_with(*slaves: dict[str, Any], **master: Any) -> Iterator[Any]:
    """The alias ``default`` with other slaves, and with other settings of the master, in every thread."""
    settings = connections.settings["default"]
    before = dict(settings)
    connections["default"].close()
    settings |= {**master, "SLAVES": list(slaves)}
    del connections["default"]
    try:
        connections["default"].force_debug_cursor = True
        yield connections["default"]
    finally:
        settings |= before
        connections["default"].close()
        del connections["default"]


class FailedError(Exception):
    """The error that the application raises in a block."""


@contextmanager
def rolled_back(using: str | None = None) -> Iterator[None]:
    """A block that ends with an exception."""
    with pytest.raises(FailedError), transaction.atomic(using=using):  # noqa: PT012 - the block is the caller's
        yield
        raise FailedError


def connect(**settings: Any) -> Any:
    """Add an alias that DATABASES does not have, in this thread."""
    alias = next(NEXT_ALIAS)
    connections[alias] = ConnectionHandler({"default": {}, alias: settings})[alias]
    connections[alias].force_debug_cursor = True
    return connections[alias]


def forget(db: Any) -> None:
    """Take it away again."""
    db.in_atomic_block = False
    db.close()
    if db.vendor == "sqlite" and db.connection is not None:
        db.connection.close()  # a database in memory, which Django keeps
    del connections[db.alias]
