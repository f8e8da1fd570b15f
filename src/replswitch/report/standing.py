"""What was found out about a server: `Standing`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replswitch.decision import State

#: What is told of each server, in the order of a table's columns.
COLUMNS: Final = ("state", "server", "reachable", "version", "read_only", "replication", "behind")

_IDENTITY: Final = ("hostname", "port", "server_id", "server_uuid", "file")


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
            or ``"none"`` (it follows nobody); ``"cluster"`` for Galera, Aurora and group replication, ``"unknown"``
            where we may not ask; None where there is nothing to replicate.
        behind: seconds; None where nobody knows.
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
