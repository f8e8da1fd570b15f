"""One combination of a server and a side: start, warm up, visit, and check what is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from processes.links import links_when_idle, server_ids
from processes.servers import StartError, end_process, running
from processes.visitors import Seen, visit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes.installed import Installed
    from processes.links import Link
    from processes.servers import Running, Variant
    from replswitch.testing.servers import ServerPair

VISITORS: Final = 12
"""At the same time."""

PAUSE: Final = 0.001
"""Seconds that a visitor's query takes, and again its page after it."""

WARM_UP_VISITORS: Final = 3 * VISITORS
"""When it warms up: so many that every worker and every thread has something to do, and pools are filled."""

WARM_UP_PAUSE: Final = 0.02
"""Likewise."""

WARM_UP: Final = 150
"""Requests of a round of warming up."""

ROUNDS: Final = 10
"""Rounds of warming up, at most: until two of them have opened no connection."""

POOL_SIZE: Final = 5
"""Connections that a pool keeps: the default of `replswitch.connect` and of SQLAlchemy."""

POOLS: Final = {"connect": 3, "django": 0, "flask": 2}
"""The pools of a process: the master's, the slave's, and with connect() one for reads on the master."""

LOG_LINES: Final = 15
"""How much of a server's log is shown where something was wrong."""


@dataclass(frozen=True, slots=True)
class Combination:
    """A combination to run.

    Attributes:
        variant: the server.
        side: ``connect``, ``django`` or ``flask``.
        driver: ``pymysql`` or ``mysqlclient``.
    """

    variant: Variant
    side: str
    driver: str


@dataclass
class Figures:
    """The result.

    Attributes:
        combination: of what.
        seen: by the visitors.
        before: connections at the servers after warming up.
        after: connections at the end.
        shared: connections that two processes have sent queries through.
        ended: connections opened before the fork that the parent has lost.
        on_slave: the share of the reads that the slave served.
        problem: why nothing could be measured.
        log: the end of the output of the server.
    """

    combination: Combination
    seen: Seen = field(default_factory=Seen)
    before: int = 0
    after: int = 0
    shared: int = 0
    ended: int = 0
    on_slave: float = 0
    problem: str = ""
    log: str = ""

    @property
    def _pooled(self) -> int:
        """How many connections may be there in the end even so: greenlets fill a pool when enough of them coincide."""
        variant, pools = self.combination.variant, POOLS[self.combination.side]
        return (
            (POOL_SIZE * pools + 1) * variant.processes if variant.greenlets else 0
        )  # and one is held since the import

    @property
    def faults(self) -> list[str]:
        """The faults."""
        return [self.problem] if self.problem else list(self._faults())

    def _faults(self) -> Iterator[str]:
        seen = self.seen
        for count, what in (
            (seen.foreign, "answers of another visitor"),
            (seen.stale, "stale own reads"),
            (seen.failed, "failed requests"),
            (self.shared, "connections in use in two processes"),
            (self.ended, "connections of the parent ended"),
        ):
            if count:
                yield f"{count} {what}"
        if self.after > max(self.before, self._pooled):
            yield f"{self.after} connections are open, {self.before} were"
        if not 0 < self.on_slave < 1:
            yield f"{self.on_slave:.0%} of the reads were on the slave, so only one side was tested"
        wanted = 2 if self.combination.variant.processes > 1 else 1
        if len(seen.processes) < wanted:
            yield f"{len(seen.processes)} process has served, so nothing was tested"


def run(combination: Combination, pair: ServerPair, installed: Installed, *, requests: int, log: Path) -> Figures:
    """Run one combination.

    Args:
        combination: which.
        pair: the servers, with the table of the pages.
        installed: where the application servers are.
        requests: how many are sent after warming up.
        log: the output of the application server.
    """
    figures = Figures(combination)
    figures.problem = installed.problem(combination.variant.program)
    if figures.problem:
        return figures
    settings: dict[str, Any] = {"side": combination.side, "driver": combination.driver}
    settings |= {"master": pair.master, "slaves": pair.slaves}
    try:
        with log.open("w") as written, running(combination.variant, installed, settings, written) as server:
            _visit(figures, pair, server, requests)
    except StartError as error:
        figures.problem = f"did not start: {error}"
    if figures.faults:
        figures.log = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    return figures


def _visit(figures: Figures, pair: ServerPair, server: Running, requests: int) -> None:
    variant = figures.combination.variant
    if (server.process != server.imported["process"]) != variant.forks:
        figures.problem = f"the application was imported {'after' if variant.forks else 'before'} the fork"
        return
    ids = server_ids(pair)
    seen = figures.seen
    before = _warm_up(pair, ids, server.port, seen)
    visit(server.port, seen, visitors=VISITORS, requests=requests, pause=PAUSE)
    after = links_when_idle(pair, ids)
    figures.before, figures.after = len(before), len(after)

    opened: set[Link] = {(server_id, link) for server_id, link in server.imported["links"]}
    users = {
        link: used | ({server.imported["process"]} if link in opened else set()) for link, used in seen.users.items()
    }
    figures.shared = sum(len(used) > 1 for used in users.values())
    if variant.forks:
        end_process(min(seen.processes, default=None))
        figures.ended = len(opened - links_when_idle(pair, ids))
    if seen.reads:
        figures.on_slave = sum(seen.on_server[ids[name]] for name in pair.slave_names) / seen.reads


def _warm_up(pair: ServerPair, ids: dict[str, int], port: int, seen: Seen) -> frozenset[Link]:
    """Let the application open what it needs; return what is open then.

    What is wrong meanwhile counts: a connection that two processes use breaks soon, and is replaced.
    """
    found, quiet = links_when_idle(pair, ids), 0
    for _ in range(ROUNDS):
        visit(port, seen, visitors=WARM_UP_VISITORS, requests=WARM_UP, pause=WARM_UP_PAUSE)
        found, before = links_when_idle(pair, ids), found
        quiet = quiet + 1 if len(found) <= len(before) else 0
        if quiet == 2:
            break
    return found
