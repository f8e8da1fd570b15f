"""A server to query (`Asked`), its state (`ServerStatus`), and the table of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from replswitch.decision import State
    from replswitch.drivers import Raw

#: Seconds to connect to a server, and for its answer.
TIMEOUT: Final = 5

#: The columns of the table, in their order.
COLUMNS: Final = ("state", "server", "reachable", "version", "read_only", "replication", "behind")

_IDENTITY: Final = ("hostname", "port", "server_id", "server_uuid", "file")


@dataclass(frozen=True, slots=True)
class Asked:
    """A server to query.

    Attributes:
        state: the state it serves.
        name: its name in the report.
        open: a function that takes a time-out in seconds and opens a connection. If it raises an error, the report
            shows "no connection" and the error. A `replswitch.ReplSwitchError` is shown by its text alone.
        error: the base class of the driver's exceptions.
        address: the settings that decide where its connections go; None if they are not known. If a slave has the
            address of the master, the report treats it as the master, and does not compare what the servers report.
        timeout: seconds to connect, and to answer, by default.
        engine: the kind of server, `replswitch.drivers.Driver.engine`.
    """

    state: State
    name: str
    open: Callable[[float], Raw] = field(repr=False)  # there may be a password in it
    error: type[Exception]
    address: object = field(default=None, repr=False)  # likewise
    timeout: float = TIMEOUT
    engine: str = ""


@dataclass
class ServerStatus:
    """The state of one server.

    Attributes:
        state: the state it serves.
        server: its name.
        reachable: it accepted the connection.
        version: as the server reports it.
        read_only: whether it refuses writes of ordinary users; None if the database has no such option.
        replication: of a slave ``"running"``, ``"connecting"``, ``"stopped"``, ``"broken"`` (it ended with an error)
            or ``"none"`` (it replicates from no server); ``"cluster"`` for Galera, Aurora and group replication,
            ``"unknown"`` if the user may not query it; None if there is nothing to replicate.
        behind: the lag in seconds; None if it is not known.
        problem: a problem to solve; None if there is none.
        note: other information.
        is_master: it is configured as a slave, but is the master itself, maybe under another address.
        grants: the privileges of its user, from SHOW GRANTS.
        variables: variables of the server that identify it or make it read-only.
    """

    state: State
    server: str
    reachable: bool = False
    version: str | None = None
    read_only: bool | None = None
    replication: str | None = None
    behind: int | None = None
    problem: str | None = None
    note: str | None = None
    is_master: bool = False
    grants: list[str] = field(default_factory=list, repr=False)  # there may be the hash of a password in it
    variables: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> tuple[str, ...]:
        """The variables that are different on each server; empty if the database has none."""
        return tuple(self.variables[name] for name in _IDENTITY if name in self.variables)

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB rather than MySQL."""
        return "mariadb" in (self.version or "").lower()

    def as_json(self) -> dict[str, Any]:
        """Return the values for the report as JSON, by their names."""
        return {name: getattr(self, name) for name in (*COLUMNS, "problem", "note")}

    def as_row(self) -> tuple[str, ...]:
        """Return the texts for the columns of the table."""
        words: dict[object, str] = {None: "-", True: "yes", False: "no"}
        behind = None if self.behind is None else f"{self.behind} s"
        values = (self.state, self.server, self.reachable, self.version, self.read_only, self.replication, behind)
        return tuple(words.get(value, str(value)) for value in values)


def table(title: str, found: Iterable[ServerStatus]) -> str:
    """Return the report on the servers as a table with a title. ``found`` is the result of `statuses`."""
    found = list(found)
    rows = [COLUMNS, *(each.as_row() for each in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [title]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells)}".rstrip())
    lines += [f"  {each.state} {each.server}: {each.note}" for each in found if each.note]
    return "\n".join(lines)


def problems(title: str, found: Iterable[ServerStatus]) -> list[str]:
    """Return a line for each problem. Each line begins with ``title``. ``found`` is the result of `statuses`."""
    return [f"{title}: the {each.state} {each.server}: {each.problem}" for each in found if each.problem]
