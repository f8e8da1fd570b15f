"""The settings of a Django process on a pair, as in docs/django.md, and the driver."""

from __future__ import annotations

from typing import Any

#: The version of mysqlclient that PyMySQL reports as its own.
STANDS_IN_FOR = (2, 2, 1, "final", 0)


def stand_in(driver: str) -> None:
    """Let PyMySQL be what ``import MySQLdb`` finds, where it was chosen.

    Django's own backend needs this of its user.
    """
    if driver == "pymysql":
        import pymysql  # noqa: PLC0415 - only where it was chosen

        pymysql.version_info = max(pymysql.version_info, STANDS_IN_FOR)
        pymysql.install_as_MySQLdb()


def database(given: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    """Return one of DATABASES: on the stock engine where the process is given no slaves.

    Args:
        given: what the process is given.
        name: of the database.
        more: settings that the application has on any engine.
    """
    master = given["master"]
    made = {
        "ENGINE": "django.db.backends.mysql",
        "NAME": name,
        "HOST": master["host"],
        "PORT": master["port"],
        "USER": master["user"],
        "PASSWORD": master["password"],
        **more,
    }
    if given["slaves"]:
        made["ENGINE"] = "django_replswitch.backends.mysql"
        made["SLAVES"] = [{"HOST": slave["host"], "PORT": slave["port"]} for slave in given["slaves"]]
    return made


def documented(given: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with what docs/django.md adds to them, where the process is given slaves."""
    if not given["slaves"]:
        return settings
    return settings | {
        "MIDDLEWARE": ["django_replswitch.middleware.ReplicationMiddleware", *settings["MIDDLEWARE"]],
        "SESSION_ENGINE": "django_replswitch.sessions",
        "INSTALLED_APPS": [*settings["INSTALLED_APPS"], "django_replswitch"],
        "REPLSWITCH": {"DEBUG_HEADER": True},
    }
