"""A process with a Django project: does what it reads from stdin, a line of JSON each, and answers on stdout.

Started by `cost.django_side.Worker`. The first line says which project it is; each other names a method of `Doer`, and
its arguments.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cost.counting import counted
from cost.django_project import MIDDLEWARE, Project
from cost.ratio import Batch, rate, repeated
from cost.served import ENVIRON, serve, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication


def set_up(project: Project, **more: Any) -> None:
    """Set Django up as a WSGI server's process does, with ``more`` settings."""
    if project.driver == "pymysql":
        import pymysql  # noqa: PLC0415 - Django's backend takes the driver that it finds when it is imported

        stand_in: Any = pymysql
        stand_in.version_info = (2, 2, 1, "final", 0)  # of mysqlclient, for stock Django as well
        stand_in.install_as_MySQLdb()
    elif project.driver == "psycopg2":  # Django prefers psycopg
        import_without("psycopg", "django.db.backends.postgresql.base")

    import django  # noqa: PLC0415 - after the driver
    from django.conf import settings  # noqa: PLC0415 - after the driver and the settings

    settings.configure(**project.settings() | more)
    django.setup()


def import_without(hidden: str, module: str) -> None:
    """Import a module as if another one were not installed."""
    known = sys.modules.get(hidden)
    sys.modules[hidden] = None  # type: ignore[assignment]  # what Python finds where a module is not installed
    try:
        import_module(module)
    finally:
        del sys.modules[hidden]
        if known is not None:
            sys.modules[hidden] = known


class Doer:
    """The methods of a worker.

    A side is named by words: ``orm ALIAS STATE`` and ``cursor ALIAS STATE`` are queries, ``serve PATH MIDDLEWARE``
    a request; an empty MIDDLEWARE is none.
    """

    def create(self) -> None:
        """Make the table and its first row, on the master."""
        from django.db import connections  # noqa: PLC0415 - after the driver and the settings

        from cost.django_views import Message  # noqa: PLC0415 - after the driver and the settings

        with connections["stock"].schema_editor() as editor:
            editor.create_model(Message)
        Message.objects.using("stock").create(pk=1, body="hello")

    def close_connections(self) -> None:
        """Close all connections; the next use makes new ones."""
        from django.db import connections  # noqa: PLC0415 - after the driver and the settings

        connections.close_all()

    def batch(self, side: str, number: int) -> tuple[float, float]:
        """Run a batch. Return its elapsed time and its processor time in seconds."""
        batch = _batch(side)
        worked, started = time.thread_time(), time.perf_counter()
        batch(number)
        return time.perf_counter() - started, time.thread_time() - worked

    def visit(self, methods: list[str], times: int) -> None:
        """Send requests of one visitor, whose browser keeps the markers."""
        cookie = ""
        for method in methods * times:
            cookie = _sent(method, cookie)

    def write(self) -> str:
        """Send a POST that writes, and return the cookie that the visitor's browser gets."""
        return _sent("POST", "")

    def calls(self, cookie: str, number: int) -> list[tuple[dict[str, int], dict[str, int]]]:
        """Send GETs with one query, and return the calls in our files for each; see `cost.counting.Calls`."""
        all_calls = []
        for _ in range(number):
            with counted() as calls:
                _sent("GET", cookie)
            all_calls.append(calls.as_pair())
        return all_calls

    def rate(self, threads: int, warm: float, seconds: float) -> float:
        """Send GETs with one query from several threads, and return how many were answered per second.

        Args:
            threads: each sends one after the other.
            warm: seconds before those that count.
            seconds: those that count.
        """
        return rate(partial(_sent, "GET", ""), threads, warm, seconds)


def _sent(method: str, cookie: str) -> str:
    """Send one request to the view with the query, and return the cookie that a browser sends with the next."""
    cookies = [cookie]

    def answer(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        assert status == {"GET": "200 OK", "POST": "302 Found"}[method], status
        cookies.extend(value.partition(";")[0] for name, value in headers if name == "Set-Cookie")
        return write

    environ = ENVIRON | {"PATH_INFO": "/message", "REQUEST_METHOD": method, "HTTP_COOKIE": cookie}
    body: Any = _application()(environ, answer)
    list(body)
    body.close()
    return cookies[-1]


@cache
def _application(middleware: str | None = None) -> WSGIApplication:
    from django.core.handlers.wsgi import WSGIHandler  # noqa: PLC0415 - after the driver and the settings
    from django.test import override_settings  # noqa: PLC0415 - after the driver and the settings

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
    from django.db import connections  # noqa: PLC0415 - after the driver and the settings

    connection: Any = connections[alias]
    block = {"master": connection.use_master, "slave": connection.use_slave} if state != "stock" else {}

    def run(number: int) -> None:
        with block.get(state, nullcontext)():
            batch(number)

    return run


def _orm_query(alias: str) -> Any:
    from cost.django_views import Message  # noqa: PLC0415 - after the driver and the settings

    def query() -> None:
        Message.objects.using(alias).get(pk=1)

    return query


def _cursor_query(alias: str) -> Any:
    from django.db import connections  # noqa: PLC0415 - after the driver and the settings

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
