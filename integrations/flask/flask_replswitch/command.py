"""``flask replswitch``: the servers of each database that uses replswitch, and their state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import with_appcontext

from replswitch.report import TIMEOUT, problems, statuses, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.report import Asked


@click.command("replswitch")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--timeout",
    type=click.IntRange(1, 3600),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a server.",
)
@with_appcontext
def show(form: str, timeout: int) -> None:
    """Show the state of the master and the slaves of each database.

    The state is: reachable, read_only, replication, lag. Exits with 1 if a server cannot be reached, a slave does not
    replicate, or the master is read-only.
    """
    databases: Mapping[str, list[Asked]] = current_app.extensions["replswitch"].servers()
    if not databases:
        raise click.ClickException(
            "No database is known. Call db.init_app(app) of Flask-SQLAlchemy before ReplSwitch(app), or give the "
            "results of replswitch.connect() to ReplSwitch, as in ReplSwitch(app, databases=[db])."
        )
    found = {name: statuses(servers, timeout) for name, servers in databases.items()}
    if form == "json":
        report: Any = {name: [each.as_json() for each in servers] for name, servers in found.items()}
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo("\n\n".join(table(name, servers) for name, servers in found.items()))
    wrong = [problem for name, servers in found.items() for problem in problems(name, servers)]
    if wrong:
        raise click.ClickException("\n".join(wrong))
