"""The chart of `consistency.py`: stale reads against reads on the slave, a field for each lag."""

from __future__ import annotations

from importlib import import_module
from math import hypot
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consistency_report import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from consistency_report import Lag, Results
    from consistency_sides import Side

COLUMNS: Final = 3

#: Points that lie closer together than this, in percent, have one label.
CLOSE: Final = 7

#: Colours that the colour-blind can tell apart, too (Okabe and Ito, https://jfly.uni-koeln.de/color/).
OURS: Final = "#0072B2"
OTHERS: Final = ("#56B4E9", "#D55E00", "#CC79A7", "#000000")
MARKS: Final = ("D", "s", "^", "v")
IDEAL: Final = {"marker": "o", "s": 190, "facecolors": "none", "edgecolors": "#009E73", "linewidths": 2}


class ChartError(Exception):
    """The chart cannot be drawn."""


class Point(NamedTuple):
    """A side at one lag, in percent of the reads."""

    on_slave: float
    stale: float
    name: str


def draw(results: Results, file: Path) -> None:
    """Draw the chart.

    Raises:
        ChartError: matplotlib is not installed.
    """
    try:
        matplotlib: Any = import_module("matplotlib")
        figures: Any = import_module("matplotlib.figure")
    except ImportError as error:
        raise ChartError("There is no chart without matplotlib: pip install 'replswitch[bench]'") from error
    with matplotlib.rc_context({"svg.hashsalt": "replswitch", "font.size": 9, "axes.titlesize": 10}):
        number = len(results.lags) + 1  # and the legend
        columns = min(COLUMNS, number)
        lines = -(-number // columns)
        figure = figures.Figure(figsize=(3.2 * columns, 2.9 * lines), layout="constrained", facecolor="white")
        fields = list(figure.subplots(lines, columns, squeeze=False).flat)
        for field, lag in zip(fields, results.lags, strict=False):
            _draw_lag(field, results, lag)
        handles, names = fields[0].get_legend_handles_labels()
        for unused in fields[len(results.lags) :]:
            unused.axis("off")
        legend = {"loc": "center left", "frameon": False, "labelspacing": 0.9, "title_fontsize": 9}
        fields[len(results.lags)].legend(handles, names, title="bottom right is best", alignment="left", **legend)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _draw_lag(field: Any, results: Results, lag: Lag) -> None:
    everything = results.at(None, lag)
    ideal = everything.ideal * 100
    field.set(title=name_of(lag), xlim=(-6, 106), ylim=(-6, 106))
    field.set_xlabel("reads on the slave, %")
    field.set_ylabel("stale reads, %")
    field.grid(color="#dddddd", linewidth=0.6)
    field.set_axisbelow(True)
    field.scatter([ideal], [0], **IDEAL, label="the ideal", zorder=4, clip_on=False)
    others = iter(zip(OTHERS, MARKS, strict=True))
    points, named = [], set()
    for side in results.sides:
        tally = results.at(side, lag)
        point = Point(tally.slave_share * 100, tally.stale_share * 100, side.short)
        colour, mark = (OURS, "o") if side.is_ours else next(others)
        label = side.short if side.short not in named else None  # several of ours have one name
        named.add(side.short)
        field.scatter(
            [point.on_slave], [point.stale], color=colour, marker=mark, s=34, label=label, zorder=5, clip_on=False
        )
        points.append(point)
    for group in _close_together(points):
        _label(field, group)


def _close_together(points: list[Point]) -> list[list[Point]]:
    groups: list[list[Point]] = []
    for point in points:
        for group in groups:
            if any(hypot(point.on_slave - x, point.stale - y) < CLOSE for x, y, _ in group):
                group.append(point)
                break
        else:
            groups.append([point])
    return groups


def _label(field: Any, group: list[Point]) -> None:
    x, y, _ = max(group)
    on_the_right = x < 50
    field.annotate(
        "\n".join(dict.fromkeys(point.name for point in group)),
        (x, y),
        xytext=(8 if on_the_right else -8, 7),
        textcoords="offset points",
        ha="left" if on_the_right else "right",
        va="bottom" if y < 70 else "top",
        fontsize=7.5,
        color="#333333",
        zorder=6,
    )
