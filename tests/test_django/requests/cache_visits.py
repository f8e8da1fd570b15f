"""Send GETs that use Django's database cache while the slave lags. A script; its argument is the BACKEND.

It creates the tables and prints a line. It goes on when it reads a line.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

if __name__ == "__main__":
    settings.CACHES = {"default": {"BACKEND": sys.argv[1], "LOCATION": "test cache"}}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.sessions.middleware.SessionMiddleware"]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    django.setup()

    import django.core.cache
    import django.db
    from asgiref.sync import async_to_sync
    from django.core.management import call_command
    from django.http import HttpResponse
    from django.test import AsyncClient, Client
    from django.urls import path
    from django.views.decorators.cache import cache_page
    from tests.test_django.project.models import Message

    # Typed as Any, because django-stubs does not know the methods of this project's backend.
    cache: Any = django.core.cache.cache
    connection: Any = django.db.connection

    call_command("migrate", run_syncdb=True, verbosity=0)
    call_command("createcachetable", verbosity=0)
    Message.objects.all().delete()  # messages of other tests
    django.db.connections.close_all()
    print("The tables are there.", flush=True)
    input()

    # The work of two GETs, and the results that each must get: the same as without a slave.
    pages: dict[str, tuple[Callable[[], Any], list[Any]]] = {
        "set": (lambda: (cache.get("set"), cache.set("set", 1)), [[None, None], [1, None]]),
        "add": (lambda: cache.add("add", 1), [True, False]),
        "incr": (lambda: (cache.add("incr", 0), cache.incr("incr")), [[True, 1], [False, 2]]),
        "decr": (lambda: (cache.add("decr", 9), cache.decr("decr")), [[True, 8], [False, 7]]),
        "get_or_set": (lambda: cache.get_or_set("get_or_set", lambda: 5), [5, 5]),
        "touch": (lambda: (cache.touch("touch"), cache.set("touch", 1)), [[False, None], [True, None]]),
        "has_key": (lambda: ("has" in cache, cache.set("has", 1)), [[False, None], [True, None]]),
        "set_many": (lambda: (cache.get_many(["m"]), cache.set_many({"m": 1})), [[{}, []], [{"m": 1}, []]]),
        "delete": (lambda: (cache.delete("d"), cache.set("d", 1)), [[False, None], [True, None]]),
        "clear": (lambda: (cache.get("c"), cache.clear(), cache.set("c", 1)), [[None, None, None], [1, None, None]]),
    }

    def answer(body: object) -> HttpResponse:
        return HttpResponse(json.dumps([body, connection.state]))

    def outside(call: Callable[[], Any]) -> Callable[[HttpRequest], HttpResponse]:
        def view(request: HttpRequest) -> HttpResponse:
            return answer([Message.objects.count(), call(), Message.objects.count()])

        return view

    def inside(call: Callable[[], Any]) -> Callable[[HttpRequest], HttpResponse]:
        def view(request: HttpRequest) -> HttpResponse:
            with django.db.transaction.atomic():
                return answer([Message.objects.count(), call()])

        return view

    def visits(request: HttpRequest) -> HttpResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return answer(request.session["visits"])

    made: list[str] = []

    @cache_page(60)
    def kept(request: HttpRequest) -> HttpResponse:
        made.append("made")
        return answer(len(made))

    patterns = [path("visits", visits), path("kept", kept)]
    for name, page in pages.items():
        patterns += [path(name, outside(page[0])), path(f"in/{name}", inside(page[0]))]
    settings.ROOT_URLCONF = tuple(patterns)

    Message.objects.create(body="the slave does not have it")
    clients: dict[str, Any] = {"wsgi": Client().get, "asgi": async_to_sync(AsyncClient().get)}
    for kind, fetch in clients.items():
        for name, (_, wanted) in pages.items():
            for prefix, again in {"": [0], "in/": []}.items():
                cache.clear()
                found = [fetch(f"/{prefix}{name}") for _ in wanted]
                right = [[[0, each, *again], "slave"] for each in wanted]
                assert [json.loads(each.content) for each in found] == right, (kind, prefix, name, found[-1].content)
                assert not any(each.cookies for each in found), (kind, prefix, name)
        assert [json.loads(fetch("/visits").content)[0] for _ in range(3)] == [1, 2, 3], kind
        cache.clear()
        made.clear()
        assert [json.loads(fetch("/kept").content)[0] for _ in range(2)] == [1, 1], kind

    async def use_asynchronously() -> list[Any]:
        with connection.use_slave():
            await cache.aset("a", 1)
            return [
                await cache.aget("a"),
                await cache.aincr("a"),
                await cache.aadd("a", 1),
                await cache.aget_or_set("b", 4),
                await cache.ahas_key("b"),
                await cache.adelete_many(["b"]),
                await cache.aget("b"),
            ]

    assert async_to_sync(use_asynchronously)() == [1, 2, False, 4, True, None, None]
    print(connection.Database.__name__)
