"""The choice of a server, and what happens after a failure, are in engine/; what differs by product, in drivers/.

Both are held over the source: by the names that a module uses, whether it imports them or not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
    "Fault", "GONE", "classify",  # what an error means
    "decide_failure", "Situation", "Verdict", "Action", "failure",  # and what follows from that
    "candidates", "rotation", "Rotation", "Health", "choose_slave", "avoid_slave",  # which server serves
}  # fmt: skip
"""Names of what decides."""

PRODUCTS = {"sqlite3", "pymysql", "MySQLdb", "psycopg", "psycopg2", "asyncpg", "aiomysql", "aiosqlite"}
PRODUCT_ATTRIBUTES = {"vendor", "module", "is_mariadb"}


def below(name: str, *folders: str) -> bool:
    return any(name.startswith(f"replswitch/{folder}") for folder in folders)


def decisions(source: str) -> Iterator[str]:
    """Yield what a source uses of that which decides."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in DECISIONS:
            yield f"line {node.lineno}: {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr in DECISIONS:
            yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"line {node.lineno}: {alias.name}" for alias in node.names if alias.name in DECISIONS)


def product_tests(source: str) -> Iterator[str]:
    """Yield where a source asks which product it has to do with."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                if isinstance(side, ast.Attribute) and (
                    side.attr in PRODUCT_ATTRIBUTES
                    or (side.attr in {"name", "driver"} and "dialect" in ast.unparse(side.value))
                ):
                    yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            kinds = ast.unparse(node.args[1])
            if any(word in kinds for word in (*PRODUCTS, "Driver", "Position", "Tracker")):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: import {name}" for name in names if name.partition(".")[0] in PRODUCTS)


@pytest.mark.parametrize("name", [name for name in SOURCES if not below(name, "engine/", "drivers/", "scope.py")])
def test_nothing_outside_the_engine_chooses_a_server_or_decides_after_a_failure(name: str) -> None:
    assert list(decisions(SOURCES[name].read_text())) == []


@pytest.mark.parametrize("name", [name for name in SOURCES if not below(name, "drivers/", "positions/", "testing/")])
def test_only_drivers_and_positions_ask_which_product_it_is(name: str) -> None:
    if name == "django_replswitch/backends/mysql/driver.py":  # lets PyMySQL stand in where Django wants mysqlclient
        return
    assert list(product_tests(SOURCES[name].read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "if driver.classify(error) in {1}: pass",
        "from replswitch.drivers import GONE",
        "scope.avoid_slave(key, server)",
        "database.rotation.rest(server, error)",
    ],
)
def test_a_decision_is_seen(source: str) -> None:
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
    ],
)
def test_a_test_for_a_product_is_seen(source: str) -> None:
    assert list(product_tests(source))
