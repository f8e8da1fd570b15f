"""Use mysqlclient as the driver if it is installed, and otherwise PyMySQL.

Import this module before Django's own backend.
"""

from __future__ import annotations

import importlib.util
from typing import Any

#: The version of mysqlclient that PyMySQL at least reports to Django, because Django 6.1 requires it.
STANDS_IN_FOR = (2, 2, 1, "final", 0)


def _install_pymysql() -> None:
    try:
        import pymysql  # noqa: PLC0415 - only if mysqlclient is not installed
    except ImportError:
        return  # Django's own backend reports the missing driver
    stand_in: Any = pymysql
    stand_in.version_info = max(stand_in.version_info, STANDS_IN_FOR)
    stand_in.install_as_MySQLdb()


if importlib.util.find_spec("MySQLdb") is None:
    _install_pymysql()
