"""How what was found is told to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.report.standing import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replswitch.report.standing import Standing


def table(title: str, found: Iterable[Standing]) -> str:
    """Return what was found as a table with a title."""
    found = list(found)
    rows = [COLUMNS, *map(_row, found)]
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


def _row(standing: Standing) -> tuple[str, ...]:
    return (
        standing.state,
        standing.server,
        "yes" if standing.reachable else "no",
        standing.version or "-",
        "-" if standing.read_only is None else "yes" if standing.read_only else "no",
        standing.replication or "-",
        "-" if standing.behind is None else f"{standing.behind} s",
    )
