"""Import what one extra of replswitch brings, in an environment that has nothing else. A script; see noxfile.py.

Its argument is the name of the extra, or "" for replswitch without an extra. It imports each module of the extra and
runs two statements, and it checks that the modules of the other extras name the extra that they need.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import replswitch
from replswitch import ConfigurationError

ALWAYS = ["replswitch.wsgi", "replswitch.asgi", "replswitch.decorators", "replswitch.jobs", "replswitch.testing"]

MODULES = {
    "mysql": ["replswitch.drivers.pymysql"],
    "postgresql": ["replswitch.drivers.psycopg"],
    "mysqlclient": ["replswitch.drivers.mysqlclient"],
    "sqlalchemy": ["replswitch.sqlalchemy"],
    "flask": ["flask_replswitch"],
    "django": ["django_replswitch.middleware", "django_replswitch.asgi", "django_replswitch.backends.sqlite3.base"],
    "prometheus": ["replswitch.telemetry.prometheus"],
    "opentelemetry": ["replswitch.telemetry.opentelemetry"],
    "celery": ["replswitch.celery"],
    "rq": ["replswitch.rq"],
    "dramatiq": ["replswitch.dramatiq"],
}
"""The modules that need an extra."""

DRIVERS = {"mysql": "pymysql", "postgresql": "psycopg", "mysqlclient": "mysqlclient"}
"""The drivers of ``connect()``, by the extra that brings them."""

PACKAGES = {
    "mysql": "pymysql",
    "postgresql": "psycopg",
    "mysqlclient": "MySQLdb",
    "sqlalchemy": "sqlalchemy",
    "flask": "flask",
    "django": "django",
    "prometheus": "prometheus_client",
    "opentelemetry": "opentelemetry",
    "celery": "celery",
    "rq": "rq",
    "dramatiq": "dramatiq",
}
"""The package of each extra that its modules import."""


def import_modules(extra: str) -> None:
    """Import the modules that need an extra."""
    if extra == "django" and find_spec("django"):
        from django.conf import settings  # noqa: PLC0415 - not in every environment

        settings.configure(SECRET_KEY="x")
    for module in MODULES[extra]:
        importlib.import_module(module)


def error_without(extra: str) -> str:
    """Return the error that a user sees who uses an extra that is not installed."""
    try:
        if extra in DRIVERS:
            replswitch.connect(master={"host": "localhost"}, slaves=[], driver=DRIVERS[extra])
        else:
            import_modules(extra)
    except (ConfigurationError, ImportError) as error:
        return str(error)
    return "no error"


def write_and_read() -> None:
    """Use SQLite, which needs no extra."""
    with tempfile.TemporaryDirectory() as folder:
        db = replswitch.connect(master={"database": str(Path(folder, "shop.db"))}, slaves=[], driver="sqlite3")
        with db.cursor() as cursor:
            cursor.execute("CREATE TABLE message (id INTEGER)")
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM message")
            assert cursor.fetchone() == (0,)
        db.close()


def main(extra: str) -> None:
    """Check the environment of one extra."""
    for module in ALWAYS:
        importlib.import_module(module)
    write_and_read()
    if extra:
        assert find_spec(PACKAGES[extra]), f"the extra {extra} does not bring {PACKAGES[extra]}"
        import_modules(extra)
    for other in MODULES:
        if not find_spec(PACKAGES[other]):
            error = error_without(other)
            assert f"pip install 'replswitch[{other}]'" in error, f"{other}: {error}"
    print(f"{extra or 'no extra'}: fine")


if __name__ == "__main__":
    main(sys.argv[1])
