"""The examples for users in docs/testing.md that need an application: on a pair, with pytest and pytest-django."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = [str(ROOT / folder) for folder in ("src", "integrations/django", "integrations/flask")]
FLASK, DJANGO = (block.partition("```")[0] for block in (ROOT / "docs" / "testing.md").read_text().split("```py\n")[1:])

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write files, and run pytest on them, with the plugin of replswitch and the given ones. Return what it prints."""

    def run_pytest(files: dict[str, str], *plugins: str, **variables: str) -> str:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        given = [argument for plugin in ("replswitch.testing.plugin", *plugins) for argument in ("-p", plugin)]
        sources = [path for path in SOURCES if path in sys.path]
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sources])}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *given, "-p", "no:cacheprovider", "--tb=short"],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.stdout + done.stderr

    return run_pytest


SHOP = """
from flask import Flask, redirect, request
from flask_replswitch import ReplSwitch

import replswitch


def create_app(master, slaves):
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "a secret of the tests"
    db = replswitch.connect(master, slaves)
    ReplSwitch(app)
    with db.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE post (body TEXT)")

    @app.route("/", methods=["GET", "POST"])
    def board():
        with db.cursor() as cursor:
            if request.method == "POST":
                cursor.execute("INSERT INTO post VALUES (%s)", (request.form["body"],))
                return redirect("/")
            cursor.execute("SELECT body FROM post")
            return " ".join(body for (body,) in cursor)

    return app
"""


def test_the_example_for_the_tests_of_a_flask_application_passes(run: Run) -> None:
    output = run({"shop.py": SHOP, "tests/test_own_write.py": FLASK})
    assert "2 passed" in output, output


SETTINGS = """
SECRET_KEY = "a secret of the tests"
ROOT_URLCONF = "site_of_the_tests"
DATABASES = {
    "default": {
        "ENGINE": "django_replswitch.backends.mysql",
        "NAME": "shop_in_production",
        "HOST": "master.db",
        "SLAVES": [{"HOST": "slave.db"}],
    },
}
MIDDLEWARE = ["django_replswitch.middleware.ReplicationMiddleware"]
INSTALLED_APPS = ["django_replswitch", "board"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""
MODELS = """
from django.db import models


class Post(models.Model):
    body = models.TextField()
"""
SITE = """
from board.models import Post
from django.http import HttpResponse
from django.urls import path


def board(request):
    if request.method == "POST":
        Post.objects.create(body=request.POST["body"])
    return HttpResponse(" ".join(Post.objects.values_list("body", flat=True)))


urlpatterns = [path("", board)]
"""
TESTS = """
import pytest
from board.models import Post  # before the fixture: Django makes its connection with the models

from django.db import connection
from django_replswitch.test import production_routing


def ports(reads):
    return [read.statement.server.partition(":")[2] for read in reads.right]


@pytest.mark.django_db(transaction=True)
def test_own_write(client, assert_reads_on, mariadb_pair):
    with assert_reads_on("slave") as reads:
        client.get("/")
    assert ports(reads) == [str(mariadb_pair.slaves[0]["port"])]
    mariadb_pair.lag = 60
    client.post("/", {"body": "hello"})
    with assert_reads_on("master"):
        assert client.get("/").content == b"hello"


def test_with_the_fixture_db(db, client, assert_reads_on):
    Post.objects.create(body="hello")
    with production_routing(), assert_reads_on("slave"):
        assert client.get("/").content == b"hello"


def test_without_the_fixture_db(client):
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        client.get("/")


async def _read(client):
    return await client.get("/")


@pytest.mark.django_db(transaction=True)
def test_async(async_client, assert_reads_on, mariadb_pair):
    from asgiref.sync import async_to_sync

    with assert_reads_on("slave") as reads:
        async_to_sync(_read)(async_client)
    assert ports(reads) == [str(mariadb_pair.slaves[0]["port"])]
"""


def test_the_example_for_pytest_django_uses_the_pair(run: Run) -> None:
    if find_spec("pytest_django") is None:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail("CI is set, so this must not be skipped: pytest-django is missing")
        pytest.skip("pytest-django is missing: pip install pytest-django")
    files = {
        "settings.py": SETTINGS,
        "board/__init__.py": "",
        "board/models.py": MODELS,
        "site_of_the_tests.py": SITE,
        "conftest.py": DJANGO,
        "tests/test_board.py": TESTS,
    }
    output = run(files, "pytest_django.plugin", DJANGO_SETTINGS_MODULE="settings")
    assert "4 passed" in output, output
