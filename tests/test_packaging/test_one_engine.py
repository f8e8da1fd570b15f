"""The choice of a server, and what happens after a failure, are in engine/; what differs by product, in drivers/.

Both are held over the source: by the names that a module uses, whether it imports them or not.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    f"{folder.name}/{file.relative_to(folder)}": file
    for folder in (
        ROOT / "src" / "replswitch",
        ROOT / "integrations" / "django" / "django_replswitch",
        ROOT / "integrations" / "flask" / "flask_replswitch",
    )
    for file in sorted(folder.rglob("*.py"))
}

DECISIONS = {
    "Fault", "GONE", "classify", "is_gone", "is_disconnect",  # what an error means
    "decide_failure", "Situation", "Verdict", "Action", "failure", "lose_master",  # and what follows from that
    "candidates", "rotation", "Rotation", "Health", "resting", "avoided", "choose_slave", "avoid_slave",  # who serves
    "master_lacks", "choose_master_read_only", "last_resort", "random",
}  # fmt: skip
"""Names of what decides."""

DECIDING_MODULES = {
    f"replswitch.engine.{name}"
    for name in ("choose", "failure", "health", "lag", "outcome", "rotation", "selection", "weights")
}

ALLOWED_DECISIONS = {
    # How a rollback ends on a connection that is lost already; in the other bindings, `Port.leave`.
    ("replswitch/sqlalchemy/ending.py", ".is_gone"),
    # The placeholder for no scope. It decides nothing.
    ("replswitch/sqlalchemy/alone.py", "replswitch.engine.selection"),
    # SQLAlchemy's own word for whether its pool closes a connection. What it says was decided before.
    ("replswitch/sqlalchemy/opening.py", ".is_disconnect"),
    ("replswitch/sqlalchemy/route.py", ".is_disconnect"),
    # Of the names of cookies, not of servers; and of ports for tests.
    ("replswitch/request/marker.py", "random"),
    ("replswitch/request/rollout.py", "random"),  # of the number of a new visitor
    ("replswitch/testing/launch.py", "random"),
    # What a server's answers to the commands mean that list servers: no statement of the application's.
    ("replswitch/report/mysql.py", "args[0] compared"),
    # What Django's own cursor makes of an error that is raised in any case.
    ("django_replswitch/backends/mysql/base.py", "args[0] compared"),
}
"""The names that may be used outside the engine, with the reason."""

PRODUCTS = {"sqlite3", "pymysql", "MySQLdb", "psycopg", "psycopg2", "asyncpg", "aiomysql", "aiosqlite", "asyncmy"}
PRODUCT_WORDS = {*PRODUCTS, "mysql", "mariadb", "mysqlclient", "mysqldb", "sqlite", "pysqlite", "postgresql"}
PRODUCT_ATTRIBUTES = {"vendor", "module", "is_mariadb"}

ALLOWED_PRODUCTS = {
    # The backends for one product each, which have its name.
    ("django_replswitch/backends/sqlite3/base.py", "import replswitch.drivers.sqlite3"),
    ("django_replswitch/backends/mysql/base.py", "base.DatabaseWrapper.Database.__name__ == 'pymysql'"),
    # The questions of the commands that list servers, by the word that the driver has for its server.
    ("replswitch/report/probe.py", "import replswitch.report.mysql"),
    ("replswitch/report/probe.py", "import replswitch.report.postgresql"),
    ("replswitch/report/mysql.py", "import replswitch.drivers.mysql"),
    ("replswitch/report/status.py", "'mariadb' in (self.version or '').lower()"),
}
"""Likewise."""


def below(name: str, *folders: str) -> bool:
    return any(name.startswith(f"replswitch/{folder}") for folder in folders)


def decisions(source: str) -> Iterator[tuple[int, str]]:
    """Yield what a source uses of that which decides, with its line."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name) and node.id in DECISIONS:
            yield line, node.id
        elif isinstance(node, ast.Attribute) and (
            node.attr in DECISIONS or any(ast.unparse(node).startswith(f"{name}.") for name in DECIDING_MODULES)
        ):
            yield line, f".{node.attr}"
        elif isinstance(node, ast.Constant) and node.value in DECISIONS and isinstance(node.value, str):
            yield line, repr(node.value)  # of getattr()
        elif isinstance(node, ast.Import):
            yield from ((line, alias.name) for alias in node.names if alias.name in DECIDING_MODULES | DECISIONS)
        elif isinstance(node, ast.ImportFrom):
            modules = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
            yield from ((line, module) for module in sorted(modules & (DECIDING_MODULES | DECISIONS)))
            yield from ((line, alias.name) for alias in node.names if alias.name in DECISIONS)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".slaves"):
            yield line, ast.unparse(node)
        elif isinstance(node, ast.Compare) and ".args[0]" in ast.unparse(node):
            yield line, "args[0] compared"


def product_words(node: ast.AST) -> set[str]:
    """Return the names of products in the texts below a node."""
    texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return texts & PRODUCT_WORDS


def product_tests(source: str) -> Iterator[tuple[int, str]]:
    """Yield where a source asks which product it has to do with."""
    for node in ast.walk(ast.parse(source)):
        line, text = getattr(node, "lineno", 0), ""
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            attributes = [side for side in sides if isinstance(side, ast.Attribute)]
            names = {side.id for side in sides if isinstance(side, ast.Name)}
            if (
                any(side.attr in PRODUCT_ATTRIBUTES for side in attributes)
                or any(side.attr in {"name", "driver"} and "dialect" in ast.unparse(side.value) for side in attributes)
                or ("DRIVER" in names)
                or product_words(node)
                or any(word in ast.unparse(node) for word in PRODUCTS if "type(" in ast.unparse(node))
            ):
                text = ast.unparse(node)
        elif isinstance(node, ast.Match):
            text = ast.unparse(node.subject) if product_words(node) else ""
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            arguments = " ".join(map(ast.unparse, node.args[1:]))
            kinds = (*PRODUCTS, "Driver", "Position", "Tracker", "drivers", "positions")
            if (
                (name in {"isinstance", "issubclass"} and any(word in arguments for word in kinds))
                or (name.endswith((".startswith", ".endswith", ".get", "import_module")) and product_words(node))
                or name.endswith("is_mariadb")
            ):
                text = ast.unparse(node)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict):
            text = ast.unparse(node) if product_words(node.value) else ""
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module or ""}
            for imported in names:
                parts = imported.split(".")
                if parts[0] in PRODUCTS or (parts[0] == "replswitch" and set(parts[1:]) & {*PRODUCT_WORDS, "unknown"}):
                    text = f"import {imported}"
        if text:
            yield line, text


def seen(name: str, found: Iterator[tuple[int, str]], allowed: set[tuple[str, str]]) -> list[str]:
    return [f"line {line}: {text}" for line, text in found if (name, text) not in allowed]


@pytest.mark.parametrize("name", [name for name in SOURCES if not below(name, "engine/", "drivers/", "scope.py")])
def test_only_code_in_the_engine_folder_chooses_a_server_or_decides_after_a_failure(name: str) -> None:
    assert seen(name, decisions(SOURCES[name].read_text()), ALLOWED_DECISIONS) == []


@pytest.mark.parametrize("name", [name for name in SOURCES if not below(name, "drivers/", "positions/", "testing/")])
def test_only_code_in_drivers_and_positions_asks_for_the_database_product(name: str) -> None:
    if name == "django_replswitch/backends/mysql/driver.py":  # lets PyMySQL stand in where Django wants mysqlclient
        return
    assert seen(name, product_tests(SOURCES[name].read_text()), ALLOWED_PRODUCTS) == []


def test_each_listed_exception_is_in_the_source() -> None:
    for allowed, find in ((ALLOWED_DECISIONS, decisions), (ALLOWED_PRODUCTS, product_tests)):
        for name, text in allowed:
            assert text in {found for _, found in find(SOURCES[name].read_text())}, (name, text)


@pytest.mark.parametrize(
    "source",
    [
        "if driver.classify(error) in {1}: pass",
        "from replswitch.drivers import GONE",
        "scope.avoid_slave(key, server)",
        "database.rotation.rest(server, error)",
        "getattr(database, 'rotation').rest(server, error)",
        "if driver.is_gone(error): run()",
        "if error.args[0] in (2006, 2013): run()",
        "port.open(database.servers.slaves[0])",
        "import random",
        "if server in health.resting: pass",
        "from replswitch.engine.failure import decide as judge",
        "import replswitch.engine.choose as choosing",
        "from replswitch.engine import failure",
        "raise replswitch.engine.outcome.no_master(server, error)",
        "if dialect.is_disconnect(error, None, None): run()",
    ],
)
def test_code_outside_the_engine_that_makes_a_decision_of_the_engine_is_found(source: str) -> None:
    assert list(decisions(source))


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(raw, sqlite3.Connection)",
        "isinstance(driver, UnknownDriver)",
        "if connection.vendor == 'mysql': pass",
        "if driver.module is other: pass",
        "if engine.dialect.name in ('mysql', 'mariadb'): pass",
        "import sqlite3",
        "if type(raw) is sqlite3.Connection: pass",
        "match connection.vendor:\n    case 'mysql': pass",
        "vendor = connection.vendor\nif vendor == 'mysql': pass",
        "if connection.vendor.startswith('mysql'): pass",
        "{'mysql': 1}[connection.vendor]",
        "if driver.engine == 'mysql': pass",
        "if driver.module.__name__ == 'pymysql': pass",
        "if settings['ENGINE'].endswith('mysql'): pass",
        "from replswitch.drivers import mysql\nisinstance(driver, mysql.MySQLFamilyDriver)",
        "issubclass(type(driver), SQLiteDriver)",
        "if is_mariadb(raw): pass",
        "if driver is DRIVER: pass",
        "importlib.import_module('pymysql')",
        "from replswitch.drivers.sqlite3 import DRIVER",
    ],
)
def test_code_that_asks_for_the_database_product_is_found(source: str) -> None:
    assert list(product_tests(source))


TOY = ROOT / "tests" / "toy_engine.py"


def test_a_database_can_be_added_in_150_lines_with_public_and_documented_names() -> None:
    source, reference = TOY.read_text(), (ROOT / "docs" / "reference.md").read_text()
    assert len(source.splitlines()) <= 150
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert all(alias.name in sys.stdlib_module_names for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in sys.stdlib_module_names:
            assert node.module in {"replswitch", "replswitch.drivers", "replswitch.positions"}
            for alias in node.names:
                assert alias.name in import_module(node.module).__all__
                assert re.search(rf"\b{alias.name}\b", reference), f"{alias.name} is not in docs/reference.md"
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), node.attr
