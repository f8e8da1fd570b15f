"""docs/django.md: its examples run, in a process of their own and in their order; its tables are complete.

They are not collected by the root conftest.py, because Django is set up there with other settings. What they need
beyond themselves is `HARNESS`. The driver is PyMySQL, because the addresses of master.db and slave.db can be set in it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from django_replswitch import checks, conf
from replswitch.testing import MariaDBPair

ROOT = Path(__file__).parents[3]
SOURCES = [path for path in map(str, (ROOT / "src", ROOT / "integrations" / "django")) if path in sys.path]
"""The sources, where the tests import them; or else nothing, and other processes run on what is installed."""
PAGE = ROOT / "docs" / "django.md"

MODELS = """
from django.db import models

class Article(models.Model):
    name = models.CharField(max_length=100)
    stock = models.IntegerField()
"""

HARNESS = """
import json, re, socket, sys, time, unittest
from pathlib import Path

sys.modules["MySQLdb"] = None  # PyMySQL replaces it
page, ports = Path(sys.argv[1]).read_text(), json.loads(sys.argv[2])
connect = socket.create_connection
socket.create_connection = lambda to, *rest, **more: connect(("127.0.0.1", ports[to[0]]), *rest, **more)

blocks = re.findall(r"^```py\\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
in_settings = [block for block in blocks if block.startswith("# settings.py")]
chosen = {"SECRET_KEY": "a long random string", "DEBUG": True, "USE_TZ": True, "ROOT_URLCONF": "shop.urls"}
chosen["DEFAULT_AUTO_FIELD"] = "django.db.models.BigAutoField"
for block in in_settings:
    exec(block, chosen)
chosen["INSTALLED_APPS"].append("shop")

import django
from django.conf import settings
from django.core.management import call_command

settings.configure(**{name: value for name, value in chosen.items() if name.isupper()})
django.setup()
call_command("check", "--database", "default", "--fail-level", "DEBUG")
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("createcachetable", verbosity=0)
call_command("replswitch")

from django.db import DatabaseError, connection
while True:
    try:
        with connection.use_slave(), connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM shop_article")
        break
    except DatabaseError:
        time.sleep(0.1)

shown = {}
for block in blocks:
    if block not in in_settings:
        exec(block, shown)

def articles(side):
    with side(), connection.cursor() as cursor:
        cursor.execute("SELECT id, name, stock FROM shop_article ORDER BY id")
        return list(cursor.fetchall())

while articles(connection.use_slave) != articles(connection.use_master):
    time.sleep(0.1)  # the examples have written

from django.test import RequestFactory, TestCase
from django.test.runner import DiscoverRunner
make = RequestFactory()
assert shown["search"](make.post("/", {"wanted": "pot"})).content == b"Teapot"
assert shown["Stocktaking"].as_view()(make.get("/")).content == b"2"

runner = DiscoverRunner(verbosity=0, interactive=False)
databases = runner.setup_databases()
classes = {each for each in shown.values() if isinstance(each, type)} - {TestCase}
cases = [each for each in classes if issubclass(each, TestCase)]
result = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases)).run(unittest.TestResult())
runner.teardown_databases(databases)
print("examples", len(blocks), "tests", result.testsRun, "problems", result.failures + result.errors)
"""


@pytest.fixture
def tables(servers_by_name: MariaDBPair) -> Iterator[MariaDBPair]:
    """The pair, without the table of the examples after them."""
    pair = servers_by_name

    def run(sql: str) -> None:
        with closing(pair.admin()) as admin, admin.cursor() as cursor:
            cursor.execute(sql)
        pair.wait_caught_up()

    run("GRANT ALL ON `test\\_%`.* TO board@'%'")
    yield pair
    run("DROP TABLE IF EXISTS shop.shop_article, shop.cache_table")


def test_the_examples_of_the_django_page_run(tables: MariaDBPair, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "models.py").write_text(MODELS)
    (folder / "urls.py").write_text("urlpatterns = []")
    ports = f'{{"master.db": {tables.master["port"]}, "slave.db": {tables.slaves[0]["port"]}}}'
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(PAGE), ports],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *SOURCES])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"examples \d\d? tests 3 problems \[\]$", done.stdout.strip()), done.stdout
    assert "System check identified no issues" in done.stdout
    told = [line.split() for line in done.stdout.splitlines()]
    for line in re.findall(r"^  (?:state|master|slave)  .*$", PAGE.read_text(), re.MULTILINE):
        state, server, *_ = line.split()
        assert any(words[:2] == [state, server] for words in told), line


def test_every_option_is_in_the_table_of_the_django_page() -> None:
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE)) == conf.NAMES


def test_every_system_check_is_in_the_table_of_the_django_page() -> None:
    folder = Path(checks.__file__).parent
    used = {name for file in folder.glob("*.py") for name in re.findall(r'"(replswitch\.[EWI]\d+)"', file.read_text())}
    assert used == set(re.findall(r"^\| `(replswitch\.\w+)` \|", PAGE.read_text(), re.MULTILINE))
