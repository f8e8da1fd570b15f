"""The addresses of the servers, for SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Mapping


def address(settings: Mapping[str, Any], drivers: Mapping[str, str]) -> str:
    """Return a driver's settings as the address that SQLAlchemy takes.

    Args:
        settings: those of a server of a pair.
        drivers: SQLAlchemy's names of the drivers for ``mysql``, ``postgresql`` and ``sqlite``.
    """
    if "host" not in settings:
        return f"sqlite+{drivers['sqlite']}:///{settings['database']}"
    dialect = "postgresql" if "dbname" in settings else "mysql"
    url = URL.create(
        f"{dialect}+{drivers[dialect]}",
        settings["user"],
        settings["password"],
        settings["host"],
        settings["port"],
        settings.get("dbname") or settings["database"],
    )
    return url.render_as_string(hide_password=False)
