"""The line of the application that a log line or an error names (M7, S8)."""

from __future__ import annotations

import asyncio
import inspect
import sys
import sysconfig
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from replswitch.installed import _folders_of_libraries
from replswitch.place import application_place

HERE = f"{__file__}:"


def library(name: str, function: Any, *, file: str = "") -> Any:
    """Return a function of an installed module that calls another function."""
    file = file or f"{sysconfig.get_path('purelib')}/{name.replace('.', '/')}.py"
    module: dict[str, Any] = {"__name__": name, "function": function}
    exec(compile("def call():\n    return function()", file, "exec"), module)
    return module["call"]


LIBRARIES = [
    *("MySQLdb.cursors", "aiomysql.cursors", "asyncmy.cursors", "asyncpg.connection", "psycopg.cursor"),
    *("psycopg2.extras", "pymysql.cursors", "sqlalchemy.orm.session", "flask_sqlalchemy.session"),
    *("django.db.models.query", "debug_toolbar.panels.sql", "channels.db", "flask.app", "werkzeug.serving"),
    *("starlette.routing", "fastapi.routing", "litestar.routes.http", "quart.app", "asgiref.sync", "anyio.to_thread"),
    *("celery.app.task", "kombu.messaging", "billiard.pool", "rq.worker", "dramatiq.worker"),
    *("uvicorn.server", "hypercorn.run", "daphne.server", "gunicorn.app", "waitress.task", "twisted.internet.defer"),
    *("opentelemetry.trace", "wrapt.wrappers", "_pytest.python", "pluggy._manager", "json.decoder"),
]


@pytest.mark.parametrize("name", LIBRARIES)
def test_s8_the_line_of_the_application_is_the_one_that_calls_a_library(name: str) -> None:
    if not name.startswith("json"):
        pytest.importorskip(name.partition(".")[0])
    place = library(name, application_place)()
    assert place.startswith(HERE)
    assert place.endswith(" in test_s8_the_line_of_the_application_is_the_one_that_calls_a_library")


WHEEL = {"METADATA": "Name: {name}\nRequires-Dist: Django>=5\n", "RECORD": "{name}/__init__.py,,\n{name}.py,,\n"}
REQUIRES_US = {"METADATA": "Name: {name}\nRequires-Dist: Django>=5\nRequires-Dist: replswitch[django]>=1\n"}
SOURCE = {"PKG-INFO": WHEEL["METADATA"], "SOURCES.txt": "setup.py", "top_level.txt": "{name}"}

KINDS = {
    "a library of a wheel": ("dist-info", WHEEL, True),
    "a library of the system": ("egg-info", {"PKG-INFO": WHEEL["METADATA"], "top_level.txt": "{name}"}, True),
    "a library that an old pip has installed": ("egg-info", {**SOURCE, "installed-files.txt": "../{name}.py"}, True),
    "an application of a wheel": ("dist-info", {**WHEEL, **REQUIRES_US}, False),
    "an application in its checkout": ("egg-info", SOURCE, False),
    "broken metadata": ("dist-info", {"RECORD": ""}, False),
    "no metadata": ("other", {}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_s8_a_line_of_an_installed_application_is_found_and_one_of_a_library_is_not(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, files, is_library = KINDS[kind]
    name = "shopping"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("replswitch.installed._folders_of_libraries", _folders_of_libraries.__wrapped__)  # no cache
    metadata = tmp_path / f"{name}-1.{ending}"
    metadata.mkdir()
    for file, text in files.items():
        (metadata / file).write_text(text.format(name=name))
    inner = library("django.db.models.query", application_place)
    place = library(f"{name}.views", inner, file=f"{tmp_path}/{name}/views.py")()
    assert place.startswith(HERE if is_library else f"{tmp_path}/{name}/views.py:2 in call")
    editable = library(f"{name}.views", inner, file=f"/home/dev/{name}/views.py")()
    assert editable.startswith(f"/home/dev/{name}/views.py:2 in call")


@pytest.mark.parametrize("entry", ["gunicorn", "flask"])
def test_s8_the_line_of_an_installed_application_is_found_if_a_script_of_a_library_runs_it(entry: str) -> None:
    view = library("shop.views", library("django.db.models.query", application_place))
    thread_places = []
    script = library("__main__", library("django.core.handlers", view), file=f"{sysconfig.get_path('scripts')}/{entry}")
    thread = threading.Thread(target=lambda: thread_places.append(script()))
    thread.start()
    thread.join()
    assert thread_places == [f"{sysconfig.get_path('purelib')}/shop/views.py:2 in call"]


def test_m7_the_line_of_the_application_is_found_from_inside_a_greenlet() -> None:
    """SQLAlchemy's asyncio extension runs its synchronous code in a greenlet."""
    run = library("sqlalchemy.engine", application_place)
    greenlet: Any = import_module("greenlet")
    place = library("sqlalchemy.util.concurrency", lambda: greenlet.greenlet(run).switch())()
    assert place.startswith(HERE)
    assert place.endswith(" in <lambda>")


@pytest.mark.parametrize("thread_sensitive", [True, False])
def test_m7_the_line_of_the_application_is_found_from_inside_a_thread_of_asgiref(thread_sensitive: bool) -> None:
    """Django's asynchronous ORM runs queries in such a thread, with no line of the application in it."""
    save = sync_to_async(library("django.db.models.base", application_place), thread_sensitive=thread_sensitive)

    async def other() -> None:
        await asyncio.sleep(10)

    async def view() -> str:
        waiting = asyncio.create_task(other())
        try:
            return str(await save())
        finally:
            waiting.cancel()

    for place in (asyncio.run(view()), async_to_sync(view)()):
        assert place.startswith(HERE)
        assert place.endswith(" in view")


SESSION = """
async def commit():
    places.append(application_place())

async def leave_block(wait):
    await wait(asyncio.create_task(commit()))
"""


@pytest.mark.parametrize("wait", [asyncio.ensure_future, asyncio.shield, asyncio.gather])
def test_m7_the_line_of_the_application_is_found_from_inside_a_task_of_a_library(wait: Any) -> None:
    """At the end of `async with Session.begin()`, SQLAlchemy commits in a task of its own."""
    places: list[str] = []
    name = "sqlalchemy.ext.asyncio.session"
    session: Any = {"__name__": name, "asyncio": asyncio, "application_place": application_place, "places": places}
    exec(SESSION, session)

    @asynccontextmanager
    async def dependency() -> AsyncIterator[None]:
        yield
        await session["leave_block"](wait)

    async def view() -> None:
        other = asyncio.create_task(asyncio.sleep(10))
        async with dependency():
            pass
        other.cancel()

    asyncio.run(view())
    (place,) = places
    assert place.startswith(HERE)
    assert place.endswith(" in dependency")


def test_s8_without_a_line_of_the_application_a_line_of_a_library_and_its_thread_are_named() -> None:
    run = library("sqlalchemy.orm.session", application_place)
    with ThreadPoolExecutor(1, thread_name_prefix="reports") as pool:
        place = pool.submit(run).result()
    file = f"{sysconfig.get_path('purelib')}/sqlalchemy/orm/session.py"
    assert place == f"{file}:2 in call, in the thread 'reports_0', which runs no application code"


@pytest.mark.parametrize("file", ["<stdin>", "<console>", "<python-input-3>", "<ipython-input-3-0123456789ab>"])
def test_s8_a_line_that_is_typed_into_an_interactive_python_is_a_line_of_the_application(file: str) -> None:
    place = library("__main__", application_place, file=file)()
    assert place == f"{file}:2 in call"


def test_s8_the_line_of_the_application_is_found_in_the_script_that_was_started(tmp_path: Any) -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    place = application_place()
    name = "test_s8_the_line_of_the_application_is_found_in_the_script_that_was_started"
    assert place == f"{__file__}:{line} in {name}"
    script = library("__main__", application_place, file=str(tmp_path / "manage.py"))
    assert script() == f"{tmp_path / 'manage.py'}:2 in call"
    assert "greenlet" in sys.modules


IN_A_LIBRARY = """
import asyncio

async def step():
    return function()

async def wait():
    others = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(3)]  # ready, and waiting for nothing
    found = asyncio.ensure_future(step())
    await asyncio.wait([*others, found])
    places.append(found.result())

def run():
    asyncio.run(wait())
"""


def test_m7_in_a_thread_with_tasks_of_libraries_alone_a_line_of_a_library_is_named() -> None:
    file = f"{sysconfig.get_path('purelib')}/anyio/tasks.py"
    places: list[str] = []
    module: dict[str, Any] = {"__name__": "anyio.tasks", "function": application_place, "places": places}
    exec(compile(IN_A_LIBRARY, file, "exec"), module)
    thread = threading.Thread(target=module["run"])
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert places[0].startswith(f"{file}:")
