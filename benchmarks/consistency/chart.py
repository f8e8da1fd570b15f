"""The chart of `consistency.command`: stale reads against reads on the slave, a field for each lag."""

from __future__ import annotations

from importlib import import_module
from math import hypot
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consistency.report import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from consistency.report import Lag, Results

COLUMNS: Final = 3

#: Points that lie closer together than this, in percent, have one label.
CLOSE: Final = 7

#: Where labels are put, in percent: above the bottom they are piled up, below the top they hang, right of this they
#: stand on the other side.
NEAR_BOTTOM, NEAR_TOP, TO_THE_RIGHT = 15, 90, 70

#: Colours that colour-blind readers can distinguish (Okabe and Ito, https://jfly.uni-koeln.de/color/).
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


def load() -> tuple[Any, Any]:
    """Return matplotlib, and its module with figures.

    Raises:
        ChartError: it is not installed.
    """
    try:
        return import_module("matplotlib"), import_module("matplotlib.figure")
    except ImportError as error:
        raise ChartError("There is no chart without matplotlib: pip install 'replswitch[bench]'") from error


def draw(results: Results, file: Path) -> None:
    """Draw the chart, as an SVG.

    Raises:
        ChartError: see `load`.
    """
    matplotlib, figures = load()
    # Letters as letters and not as outlines: the file stays small, and its words can be found and read aloud.
    style = {"svg.fonttype": "none", "svg.hashsalt": "replswitch", "font.size": 9, "axes.titlesize": 10}
    with matplotlib.rc_context(style):
        number = len(results.lags) + 1  # and the legend
        columns = min(COLUMNS, number)
        lines = -(-number // columns)
        figure = figures.Figure(figsize=(3.2 * columns, 2.8 * lines), layout="constrained", facecolor="white")
        fields = list(figure.subplots(lines, columns, squeeze=False).flat)
        for field, lag in zip(fields, results.lags, strict=False):
            _draw_lag(field, results, lag)
        for unused in fields[len(results.lags) :]:
            unused.axis("off")
        _legend(fields[len(results.lags)], *fields[0].get_legend_handles_labels())
        figure.savefig(file, format="svg", metadata={"Date": None})


def _legend(field: Any, handles: list[Any], names: list[str]) -> None:
    title = "Best is the bottom right.\nNobody can be right of the\nideal without stale reads."
    legend = field.legend(handles, names, title=title, loc="center left", frameon=False, labelspacing=0.9)
    legend.set_alignment("left")
    legend.get_title().set_fontsize(9)


def _draw_lag(field: Any, results: Results, lag: Lag) -> None:
    field.set(title=name_of(lag), xlim=(-6, 106), ylim=(-6, 106))
    field.set_xlabel("reads on the slave, %")
    field.set_ylabel("stale reads, %")
    field.grid(color="#dddddd", linewidth=0.6)
    field.set_axisbelow(True)
    ideal = results.at(None, lag).ideal * 100
    field.scatter([ideal], [0], **IDEAL, label="the ideal", zorder=4, clip_on=False)
    others = iter(zip(OTHERS, MARKS, strict=True))
    points: list[Point] = []
    for side in results.sides:
        tally = results.at(side, lag)
        point = Point(tally.slave_share * 100, tally.stale_share * 100, side.short)
        colour, mark = (OURS, "o") if side.is_ours else next(others)
        label: str | None = side.short if side.is_ours else side.label
        if side.short in {known.name for known in points}:
            label = None  # ours have one name
        where, order = ([point.on_slave], [point.stale]), 7 if side.is_ours else 5
        field.scatter(*where, color=colour, marker=mark, s=30, label=label, zorder=order, clip_on=False)
        points.append(point)
    _label(field, points)


def _label(field: Any, points: list[Point]) -> None:
    groups = _close_together(points)
    bottom = 0  # how high the labels along the bottom have grown, in lines
    for group in sorted(groups):
        x, y, _ = max(group)
        names = list(dict.fromkeys(point.name for point in group))
        if y < NEAR_BOTTOM:
            # Each further to the right begins above the one to its left, so that none lies on another.
            height, side = 10 + 10 * bottom, "left" if x < TO_THE_RIGHT else "right"
            bottom += len(names)
        else:
            height, side = (8 if y < NEAR_TOP else -22), "left" if x < TO_THE_RIGHT else "right"
        field.annotate(
            "\n".join(names),
            (x, y),
            xytext=(7 if side == "left" else -7, height),
            textcoords="offset points",
            ha=side,
            va="bottom",
            fontsize=7.5,
            color="#333333",
            zorder=6,
            arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        )


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
