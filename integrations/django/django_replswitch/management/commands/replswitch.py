"""``manage.py replswitch``: the servers of each database that uses replswitch, and their state."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from django_replswitch.report import statuses, switching_aliases
from replswitch.report import TIMEOUT, problems, table


class Command(BaseCommand):
    """The command ``manage.py replswitch``."""

    help = (
        "Shows the state of the master and the slaves of each database that uses replswitch: reachable, read_only, "
        "replication, lag. Exits with 1 if a server cannot be reached, a slave does not replicate, or the master is "
        "read-only."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012 - the command is for finding what is wrong

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument("--database", metavar="ALIAS", help="only this alias of DATABASES (default: all)")
        parser.add_argument(
            "--format", choices=("table", "json"), default="table", help="format of the output (default: %(default)s)"
        )
        parser.add_argument(
            "--timeout",
            type=_seconds,
            metavar="SECONDS",
            help=f"how long to wait for a server (default: connect_timeout of its OPTIONS, or {TIMEOUT})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Query the servers, print their state, and raise CommandError if something is wrong."""
        found = {alias: statuses(alias, options["timeout"]) for alias in self._aliases(options["database"])}
        if options["format"] == "json":
            report = {alias: [each.as_json() for each in servers] for alias, servers in found.items()}
            self.stdout.write(json.dumps(report, indent=2))
        else:
            engines = {alias: connections.settings[alias]["ENGINE"] for alias in found}
            self.stdout.write("\n\n".join(table(f"{alias} ({engines[alias]})", found[alias]) for alias in found))
        wrong = [problem for alias, servers in found.items() for problem in problems(alias, servers)]
        if wrong:
            raise CommandError("\n".join(wrong))

    def _aliases(self, wanted: str | None) -> list[str]:
        switching = switching_aliases()
        if wanted in switching:
            return [wanted]
        if wanted in connections.settings:
            engine = connections.settings[wanted]["ENGINE"]
            raise CommandError(f'The database "{wanted}" does not use replswitch. Its ENGINE is "{engine}".')
        if wanted is not None:
            raise CommandError(f'DATABASES has no alias "{wanted}". Its aliases are: {", ".join(connections)}.')
        if not switching:
            hint = 'Set "ENGINE": "django_replswitch.backends.mysql" in DATABASES.'
            raise CommandError(f"No database uses replswitch. {hint}")
        return switching


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 100_000):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a valid number of seconds. Give a whole number from 1 to 99999."
        )
    return int(text)
