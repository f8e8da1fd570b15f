"""The sides of `consistency.command`, and the process of each."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.process import command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from replswitch.testing.pair import ReplicatedPair


MYSQL: Final = ("MariaDB", "MySQL")
POSTGRESQL: Final = ("PostgreSQL",)
ALL: Final = (*MYSQL, *POSTGRESQL)


class SideError(Exception):
    """A side could not be started."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the things that are compared.

    Attributes:
        name: of its entry in `consistency.worker.APPLICATIONS`.
        label: its name in tables.
        short: its name in the chart.
        is_ours: it is replswitch with positions, and must keep the limits.
        products: the database products that it runs on.
    """

    name: str
    label: str
    short: str
    is_ours: bool = False
    products: tuple[str, ...] = ALL

    @contextmanager
    def running(
        self, pair: ReplicatedPair, product: str = "MariaDB", options: Mapping[str, str] | None = None
    ) -> Iterator[int]:
        """Serve it in a process of its own, and yield the port.

        Args:
            pair: the servers.
            product: the product of the servers.
            options: more settings for the application's connections.

        Raises:
            SideError: the process has ended instead.
        """
        process = subprocess.Popen(
            command("consistency.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        with process:  # it ends with its stdin
            assert process.stdin is not None
            assert process.stdout is not None
            master, slave = ({**settings, **(options or {})} for settings in (pair.master, pair.slaves[0]))
            wanted: dict[str, Any] = {"side": self.name, "product": product, "master": master, "slave": slave}
            process.stdin.write(json.dumps(wanted).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise SideError(f"The side {self.name!r} has not started. The lines above have the reason.")
            told = json.loads(answer)
            if "missing" in told:
                raise SideError(
                    f"The side {self.name!r} needs {told['missing']}, which is not installed: "
                    "pip install 'replswitch[bench]', or leave it out with --setups."
                )
            yield told["port"]


SIDES: Final = (
    Side("connect", "replswitch, connect()", "replswitch", is_ours=True),
    Side("django", "replswitch, Django with mysqlclient", "replswitch", is_ours=True, products=MYSQL),
    Side("django-pymysql", "replswitch, Django with PyMySQL", "replswitch", is_ours=True, products=MYSQL),
    Side("django-psycopg", "replswitch, Django with psycopg", "replswitch", is_ours=True, products=POSTGRESQL),
    Side("django-psycopg2", "replswitch, Django with psycopg2", "replswitch", is_ours=True, products=POSTGRESQL),
    Side("flask", "replswitch, Flask-SQLAlchemy", "replswitch", is_ours=True),
    Side("clock", "replswitch, by the clock", "by the clock", products=MYSQL),
    Side("django-replicated", "django-replicated", "django-replicated"),
    Side("multidb-router", "django-multidb-router", "multidb-router"),
    Side("plain", "plain Django, reads on the slave", "plain Django"),
)
"""All of them, in the order of the tables."""
