"""The command line: it does what ``manage.py migrate``, ``manage.py replswitch`` and ``manage.py runserver`` do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from shop.command import begin_lag, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.testing import ReplicatedPair


def main() -> int:
    """Run the shop until Ctrl-C. Return the exit code."""
    return run("shop_django", "Django", serve, real=["mariadb"])


def serve(pair: ReplicatedPair, port: int) -> None:
    """Create the tables, print what the servers are, and serve the shop."""
    master = as_in_databases(pair.master)
    is_sqlite = "HOST" not in master
    if is_sqlite:
        # Otherwise a transaction that reads before it writes fails at once beside another writer: "database is locked".
        master["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "shop_django.settings",
        "DJANGO_RUNSERVER_HIDE_WARNING": "true",
        "SHOP_ENGINE": f"django_replswitch.backends.{'sqlite3' if is_sqlite else 'mysql'}",
        "SHOP_MASTER": json.dumps(master),
        "SHOP_SLAVES": json.dumps([as_in_databases(slave) for slave in pair.slaves]),
    }
    import django  # noqa: PLC0415 - the settings need the addresses of the servers
    from django.core.management import call_command  # noqa: PLC0415 - likewise

    django.setup()
    call_command("migrate", verbosity=0)
    pair.wait_caught_up()
    call_command("replswitch")
    begin_lag(pair)
    call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)


def as_in_databases(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a driver under their names in DATABASES."""
    return {"NAME" if name == "database" else name.upper(): value for name, value in settings.items()}
