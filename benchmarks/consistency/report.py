"""The report of `consistency.command`: tables in Markdown, and the limits that replswitch misses."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from consistency.ledger import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from consistency.sides import Side
    from consistency.visitors import Kind

#: Seconds; None is replication that has stopped.
Lag = int | None

#: How much of the ideal replswitch must reach.
LIMIT: Final = 0.95

#: The marks before and after the tables in a file with other text.
BEGIN, END = "<!-- results of benchmarks/consistency -->", "<!-- end of the results -->"

#: The packages on which the results depend.
PACKAGES: Final = (
    "Django",
    "django-replicated",
    "django-multidb-router",
    "Flask-SQLAlchemy",
    "mysqlclient",
    "PyMySQL",
    "psycopg",
    "psycopg2-binary",
)


class SaveError(Exception):
    """The results cannot be put into a file."""


class Results:
    """The results for each side, lag and kind of visitors.

    Attributes:
        server: the version of the database servers.
        delays: how long the slave took at each lag to get a write, in seconds.
        longest_look: how far apart two looks at the slave were, in seconds.
    """

    def __init__(self) -> None:
        self.server = ""
        self.delays: defaultdict[Lag, list[float]] = defaultdict(list)
        self.longest_look = 0.0
        self._tallies: defaultdict[tuple[Side, Lag, Kind], Tally] = defaultdict(Tally)

    def add(self, side: Side, lag: Lag, kind: Kind, tally: Tally) -> None:
        """Add the reads of some visitors."""
        self._tallies[side, lag, kind] += tally

    def at(self, side: Side | None, lag: Lag, kind: Kind | None = None) -> Tally:
        """Return the tally at a lag, of one side or of all (None), of one kind of visitors or of all."""
        seen = [
            tally
            for (its_side, its_lag, its_kind), tally in self._tallies.items()
            if its_lag == lag and side in {None, its_side} and kind in {None, its_kind}
        ]
        return sum(seen, Tally())

    @property
    def sides(self) -> list[Side]:
        """The sides, in their order."""
        return list(dict.fromkeys(side for side, _, _ in self._tallies))

    @property
    def lags(self) -> list[Lag]:
        """The lags, in their order."""
        return list(dict.fromkeys(lag for _, lag, _ in self._tallies))

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of visitors, in their order."""
        return list(dict.fromkeys(kind for _, _, kind in self._tallies))


def name_of(lag: Lag) -> str:
    """Name a lag, for people."""
    return "replication stopped" if lag is None else f"lag {lag} s"


def problems(results: Results) -> list[str]:
    """Return the limits that replswitch misses, and the reasons why results are worthless."""
    return [problem for lag in results.lags for problem in _problems_at(results, lag)]


def _problems_at(results: Results, lag: Lag) -> Iterator[str]:
    everything = results.at(None, lag)
    if lag is None and everything.possible:
        yield f"{name_of(lag)}: the slave has got writes all the same, so nothing was tested"
    if lag is not None and not everything.possible:
        yield f"{name_of(lag)}: the slave got no write while somebody read. Visits must be longer (--seconds)"
    if lag and everything.possible == everything.reads:
        yield f"{name_of(lag)}: the slave did not lag, so nothing was tested"
    for side in results.sides:
        tally = results.at(side, lag)
        where = f"{side.label}, {name_of(lag)}"
        if tally.failed or not tally.reads:
            yield f"{where}: {tally.failed} requests have failed, and {tally.reads} reads were answered"
        if side.is_ours and tally.stale:
            yield f"{where}: {tally.stale} of {tally.reads} reads were stale"
        if side.is_ours and tally.of_ideal < LIMIT:
            yield f"{where}: the slave served {tally.of_ideal:.3f} of what it could; {LIMIT} is the limit"


def report(results: Results, machine: str) -> str:
    """Return everything in Markdown."""
    return "\n\n".join(
        (machine, summary(results), "Counts of reads, for all visitors together:", details(results), *by_kind(results))
    )


def summary(results: Results) -> str:
    """Return the short table: stale reads and reads on the slave, in percent."""
    lags = results.lags
    rows = [["stale / on the slave", *map(name_of, lags)], ["---", *("---:" for _ in lags)]]
    rows.append(["*the slave has a write after*", *(_seconds(results.delays[lag]) for lag in lags)])
    rows.append(["*the ideal*", *(f"*0 % / {_percent(results.at(None, lag).ideal)}*" for lag in lags)])
    rows += [[side.label, *(_cell(results.at(side, lag)) for lag in lags)] for side in results.sides]
    return _markdown(rows)


def _cell(tally: Tally) -> str:
    return f"{_percent(tally.stale_share)} / {_percent(tally.slave_share)}"


def _seconds(delays: list[float]) -> str:
    return f"*{max(0.0, min(delays)):.1f} to {max(delays):.1f} s*" if delays else "*never*"


def _percent(share: float) -> str:
    # A small share must not look like 0.
    return f"{share * 100:.1f} %" if 0 < share < 0.01 else f"{share * 100:.0f} %"


def details(results: Results) -> str:
    """Return the long table."""
    rows = [
        ["", "", "reads", "stale", "on the slave", "possible", "share of the possible on the slave"],
        ["---", "---", *["---:"] * 5],
    ]
    for lag in results.lags:
        for side in results.sides:
            tally = results.at(side, lag)
            of_ideal = f"{tally.of_ideal:.3f}" if tally.possible else ""
            figures = (tally.reads, tally.stale, tally.on_slave, tally.possible, of_ideal)
            rows.append([name_of(lag), side.label, *map(str, figures)])
    return _markdown(rows)


def by_kind(results: Results) -> Iterator[str]:
    """Yield the tables of the kinds of visitors, at the lag that the text describes: 2 s, or else the last."""
    if len(results.kinds) == 1:
        return
    lag = 2 if 2 in results.lags else results.lags[-1]
    yield f"The shares for each action of the visitor ({name_of(lag)}), stale / on the slave:"
    kinds = results.kinds
    rows = [["", *(kind.value for kind in kinds)], ["---", *("---:" for _ in kinds)]]
    rows.append(["*the ideal*", *(f"*0 % / {_percent(results.at(None, lag, kind).ideal)}*" for kind in kinds)])
    rows += [[side.label, *(_cell(results.at(side, lag, kind)) for kind in kinds)] for side in results.sides]
    yield _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine(results: Results) -> str:
    """Return the date and the machine of the results."""
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.system()}, {results.server}, "
        f"Python {platform.python_version()}, {packages}; the slave was polled at least every "
        f"{results.longest_look * 1000:.0f} ms."
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def around(file: Path) -> tuple[str, str]:
    """Return the text before and after the results in a Markdown file; empty if there is no such file.

    Raises:
        SaveError: the file has other text, but no place for the results.
    """
    if not file.exists():
        return "", "\n"
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SaveError(
            f"{file} has other text, and no place for the results: lines with {BEGIN} and {END}. Add them, or give "
            "--out another folder."
        )
    return before, after


def save(file: Path, text: str) -> None:
    """Put the results into a Markdown file; other text that is there stays.

    Raises:
        SaveError: see `around`.
    """
    before, after = around(file)
    file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
