"""Arrows go one way: bindings -> core. Every import counts, those in functions and under TYPE_CHECKING too."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = "replswitch"
BINDINGS = ("django_replswitch", "flask_replswitch")
PACKAGES = {
    CORE: ROOT / "src" / CORE,
    **{name: ROOT / "integrations" / name.removesuffix("_replswitch") / name for name in BINDINGS},
}

IMPORTERS = {
    "itsdangerous": ["replswitch.request.marker"],
    "aiomysql": ["replswitch.drivers.async_aiomysql"],
    "asyncpg": ["replswitch.drivers.async_asyncpg", "replswitch.drivers.async_asyncpg_connection"],
    "celery": ["replswitch.celery"],
    "dramatiq": ["replswitch.dramatiq"],
    "MySQLdb": ["replswitch.drivers.mysqlclient"],
    "opentelemetry": ["replswitch.telemetry.opentelemetry"],
    "prometheus_client": ["replswitch.telemetry.prometheus"],
    "psycopg": [
        "replswitch.drivers.async_psycopg",
        "replswitch.drivers.psycopg",
        "replswitch.drivers.psycopg_connection",
        "replswitch.drivers.psycopg_cursor",
        "replswitch.drivers.psycopg_exchange",
        "replswitch.drivers.psycopg_questions",
        "replswitch.drivers.psycopg_running",
        "replswitch.drivers.psycopg_server_cursor",
        "replswitch.testing",
    ],
    "psycopg2": [f"replswitch.drivers.{name}" for name in ("psycopg2", "psycopg2_connection", "psycopg2_cursor")],
    "pymysql": ["replswitch.drivers.pymysql", "replswitch.drivers.tracking_connection", "replswitch.testing"],
    "pytest": ["replswitch.testing"],
    "rq": ["replswitch.rq"],
    "sqlalchemy": ["replswitch.sqlalchemy"],
    "webob": ["replswitch.request.wsgi"],
}
"""Which modules of the core import what is neither Python's nor ours. A package stands for its modules too."""


def is_in(module: str, package: str) -> bool:
    """Return whether a module is a package, or one of the modules in it."""
    return module == package or module.startswith(f"{package}.")


def imports(module: str, source: str, *, is_package: bool = False) -> Iterator[tuple[str, str]]:
    """Yield ``(module, name)`` for all that a source imports; the name is empty for ``import module``."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            target = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((target, alias.name) for alias in node.names)


def wrong_in_core(module: str, target: str, name: str) -> str:
    """Say what is wrong with an import in the core; nothing is wrong if that is empty."""
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names:
        return ""
    if top == CORE:
        reaches_testing = is_in(f"{target}.{name}", "replswitch.testing")
        return (
            "the core needs nothing from testing" if reaches_testing and not is_in(module, "replswitch.testing") else ""
        )
    if any(is_in(module, importer) for importer in IMPORTERS.get(top, [])):
        return ""
    return f"only {IMPORTERS.get(top, 'a binding')} may import {top}"


def wrong_in_binding(module: str, target: str, name: str) -> str:
    """Say what is wrong with an import in a binding; nothing is wrong if that is empty."""
    top = target.partition(".")[0]
    if top in BINDINGS and not is_in(module, top):
        return "a binding imports no other binding"
    if top != CORE:
        return ""
    if any(part.startswith("_") for part in f"{target}.{name}".split(".")):
        return "a binding uses public names only"
    public = getattr(import_module(target), "__all__", None)
    if name and public is not None and name not in public:
        return f"{name} is not in {target}.__all__"
    return ""


def wrong(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return what is wrong with a module's imports."""
    check = wrong_in_core if is_in(module, CORE) else wrong_in_binding
    found = []
    for target, name in imports(module, source, is_package=is_package):
        if reason := check(module, target, name):
            found.append(f"{module} imports {target} {name}: {reason}")
    return found


def modules() -> dict[str, Path]:
    """Return the file of each module of the three packages by the module's name."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = file
    return found


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_is_listed(module: str) -> None:
    file = MODULES[module]
    assert not wrong(module, file.read_text(), is_package=file.name == "__init__.py")


def test_no_module_is_in_an_import_circle() -> None:
    graph = {}
    for module, file in MODULES.items():
        found = imports(module, file.read_text(), is_package=file.name == "__init__.py")
        targets = {f"{target}.{name}" if f"{target}.{name}" in MODULES else target for target, name in found}
        graph[module] = {target for target in targets if target in MODULES and target != module}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_has_py_typed(package: str) -> None:
    assert package in MODULES
    assert (PACKAGES[package] / "py.typed").is_file()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("replswitch.state", "import flask_replswitch"),
        ("replswitch.state", "from django_replswitch.middleware import ReplicationMiddleware"),
        ("replswitch.state", "import django.db"),
        ("replswitch.state", "from webob import Request"),
        ("replswitch.state", "def later():\n    import sqlalchemy"),
        ("replswitch.state", "if TYPE_CHECKING:\n    from pymysql.connections import Connection"),
        ("replswitch.state", "import replswitch.testing.pair"),
        ("replswitch.state", "from replswitch import testing"),
        ("replswitch.state", "from . import testing"),
        ("replswitch.drivers.sqlite3", "import pymysql"),
        ("replswitch.testing.plugin", "import flask"),
        ("django_replswitch.middleware", "import flask_replswitch"),
        ("flask_replswitch", "from django_replswitch import middleware"),
        ("flask_replswitch", "from replswitch._hidden import x"),
        ("flask_replswitch", "from replswitch.state import _stack"),
        ("flask_replswitch", "from replswitch import errors"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert wrong(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("replswitch.state", "import contextvars\nfrom replswitch.errors import RevertError"),
        ("replswitch.request.wsgi", "from webob import Request"),
        ("replswitch.sqlalchemy.engines", "def open():\n    from sqlalchemy.pool import QueuePool"),
        ("replswitch.testing.plugin", "import pytest\nimport pymysql\nfrom replswitch.testing import ReplicatedPair"),
        ("django_replswitch.middleware", "import django\nfrom replswitch import Switch\nfrom . import decorators"),
        ("flask_replswitch", "import flask\nfrom replswitch.state import Switch\nimport replswitch"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert not wrong(module, source)
