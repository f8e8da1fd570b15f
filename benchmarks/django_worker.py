"""A process with a Django project: does what it reads from stdin, a line of JSON each, and answers on stdout.

Started by `django_side.Worker`. The first line says which project it is; each other names a method of `Doer`, and
its arguments.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from django_project import MIDDLEWARE, Project
from ratio import Batch, Times, measure, repeated
from served import ENVIRON, send, serve

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


def set_up(project: Project) -> None:
    """Set Django up as a WSGI server's process does."""
    if project.driver == "pymysql":
        import pymysql  # noqa: PLC0415 - Django's backend takes the driver that it finds when it is imported

        stand_in: Any = pymysql
        stand_in.version_info = (2, 2, 1, "final", 0)  # of mysqlclient, for stock Django as well
        stand_in.install_as_MySQLdb()

    import django  # noqa: PLC0415 - behind the driver
    from django.conf import settings  # noqa: PLC0415

    settings.configure(**project.settings())
    django.setup()


class Doer:
    """What a worker can do.

    A side is named by words: ``orm ALIAS STATE`` and ``cursor ALIAS STATE`` are queries, ``serve PATH MIDDLEWARE``
    a request; an empty MIDDLEWARE is none.
    """

    def create(self) -> None:
        """Make the table and its first row, on the master."""
        from django.db import connections  # noqa: PLC0415
        from django_views import Message  # noqa: PLC0415

        with connections["stock"].schema_editor() as editor:
            editor.create_model(Message)
        Message.objects.using("stock").create(pk=1, body="hello")

    def measure(self, sides: list[str], rounds: int) -> Times:
        """Measure sides of this one process against each other, each time with fresh connections."""
        from django.db import connections  # noqa: PLC0415

        connections.close_all()
        return measure({side: _batch(side) for side in sides}, rounds)

    def batch(self, side: str, number: int) -> float:
        """Do something so many times, and return how many seconds it took."""
        batch = _batch(side)
        started = time.perf_counter()
        batch(number)
        return time.perf_counter() - started

    def send(self, methods: list[str], times: int) -> str:
        """Send requests of one visitor, and return his cookie."""
        cookie = ""
        for _ in range(times):
            for method in methods:
                cookie = send(_application(), method, cookie)
        return cookie


@cache
def _application(middleware: str | None = None) -> WSGIApplication:
    from django.core.handlers.wsgi import WSGIHandler  # noqa: PLC0415
    from django.test import override_settings  # noqa: PLC0415

    if middleware is None:  # the project's own
        return WSGIHandler()
    with override_settings(MIDDLEWARE=MIDDLEWARE[middleware]):
        return WSGIHandler()


@cache
def _batch(side: str) -> Batch:
    kind, *words = side.split()
    if kind == "serve":
        environ = ENVIRON | {"PATH_INFO": words[0]}
        return repeated(partial(serve, _application(*words[1:]), environ))
    alias, state = words
    query = _orm_query if kind == "orm" else _cursor_query
    return _in_state(alias, state, repeated(query(alias)))


def _in_state(alias: str, state: str, batch: Batch) -> Batch:
    from django.db import connections  # noqa: PLC0415

    connection: Any = connections[alias]
    block = {"master": connection.use_master, "slave": connection.use_slave} if state != "stock" else {}

    def run(number: int) -> None:
        with block.get(state, nullcontext)():
            batch(number)

    return run


def _orm_query(alias: str) -> Any:
    from django_views import Message  # noqa: PLC0415

    def query() -> None:
        Message.objects.using(alias).get(pk=1)

    return query


def _cursor_query(alias: str) -> Any:
    from django.db import connections  # noqa: PLC0415

    def query() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()

    return query


if __name__ == "__main__":
    set_up(Project(**json.loads(sys.stdin.readline())))
    doer = Doer()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(getattr(doer, name)(**arguments)), flush=True)
