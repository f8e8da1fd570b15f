"""A server that is asked, `Asked`, what was found out about it, `Standing`, and how that is told to people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from replswitch.decision import State
    from replswitch.drivers import Raw

#: Seconds to connect to a server, and for its answer.
TIMEOUT: Final = 5

#: What is told of each server, in the order of a table's columns.
COLUMNS: Final = ("state", "server", "reachable", "version", "read_only", "replication", "behind")

_IDENTITY: Final = ("hostname", "port", "server_id", "server_uuid", "file")


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that is asked.

    Attributes:
        state: the state it serves.
        name: what people know it by.
        open: returns a new connection, within so many seconds. What it raises is reported; a
            `replswitch.ReplSwitchError` in its own words alone.
        error: the root of the driver's errors.
        address: what decides where its connections lead: a slave that has the master's is the master itself, whatever
            the server says. None where that is unknown.
        timeout: seconds to connect, and to answer, where no others are asked for.
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
class Standing:
    """How one server stands.

    Attributes:
        state: the state it serves.
        server: its name.
        reachable: it let us in.
        version: what it says of itself.
        read_only: whether it refuses ordinary users' writes; None where the database has no such option.
        replication: of a slave ``"running"``, ``"connecting"``, ``"stopped"``, ``"broken"`` (it ended with an error)
            or ``"none"`` (it replicates from no server); ``"cluster"`` for Galera, Aurora and group replication,
            ``"unknown"`` where we may not ask; None where there is nothing to replicate.
        behind: seconds; None where it is not known.
        problem: what somebody should see to; None when all is well.
        note: what else there is to say.
        is_master: it serves slave state, and is the master itself, by whatever address.
        grants: what its user may do there, as SHOW GRANTS has it.
        variables: what it is, in the server's own words.
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
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> tuple[str, ...]:
        """What no two servers have in common; empty where the database does not say."""
        return tuple(self.variables[name] for name in _IDENTITY if name in self.variables)

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB, and not MySQL."""
        return "mariadb" in (self.version or "").lower()

    def as_json(self) -> dict[str, Any]:
        """Return what a program may want to know."""
        return {name: getattr(self, name) for name in (*COLUMNS, "problem", "note")}

    def as_row(self) -> tuple[str, ...]:
        """Return what people want to know, as words for the columns."""
        words: dict[object, str] = {None: "-", True: "yes", False: "no"}
        behind = None if self.behind is None else f"{self.behind} s"
        values = (self.state, self.server, self.reachable, self.version, self.read_only, self.replication, behind)
        return tuple(words.get(value, str(value)) for value in values)


def table(title: str, found: Iterable[Standing]) -> str:
    """Return what was found as a table with a title."""
    found = list(found)
    rows = [COLUMNS, *(each.as_row() for each in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [title]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells)}".rstrip())
    lines += [f"  {each.state} {each.server}: {each.note}" for each in found if each.note]
    return "\n".join(lines)


def problems(title: str, found: Iterable[Standing]) -> list[str]:
    """Return what somebody should see to, in a line each."""
    return [f"{title}: the {each.state} {each.server}: {each.problem}" for each in found if each.problem]
