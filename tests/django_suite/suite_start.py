"""Starts Django's runtests.py in its process, with the driver that was chosen."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path


def stand_in() -> None:
    """Let PyMySQL be what ``import MySQLdb`` finds, mysqlclient installed or not.

    Django's own backend needs this of its user. It comes before runtests.py, which imports the driver first of all.
    """
    import pymysql  # noqa: PLC0415 - only where it was chosen

    pymysql.version_info = max(pymysql.version_info, (2, 2, 1, "final", 0))
    pymysql.install_as_MySQLdb()


if __name__ == "__main__":
    driver = json.loads(os.environ["DJANGO_SUITE"])["driver"]
    if driver == "pymysql":
        stand_in()
    elif driver == "psycopg2":  # or Django prefers the other
        sys.modules["psycopg"] = None  # type: ignore[assignment]
    sys.argv[0] = "runtests.py"
    sys.path[0] = str(Path.cwd())  # as it is for a script that is started in its own folder
    runpy.run_path("runtests.py", run_name="__main__")
