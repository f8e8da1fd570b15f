"""Chooses the driver: mysqlclient where it is installed, PyMySQL in its place where it is not.

Import it before Django's own backend.
"""

from __future__ import annotations

import importlib.util
from typing import Any

#: mysqlclient's version that PyMySQL stands in for: what Django 6.1 asks for at least.
STANDS_IN_FOR = (2, 2, 1, "final", 0)


def _install_pymysql() -> None:
    try:
        import pymysql  # noqa: PLC0415 - only where mysqlclient is not there
    except ImportError:
        return  # Django's own backend says what is missing
    stand_in: Any = pymysql
    stand_in.version_info = max(stand_in.version_info, STANDS_IN_FOR)
    stand_in.install_as_MySQLdb()


if importlib.util.find_spec("MySQLdb") is None:
    _install_pymysql()
