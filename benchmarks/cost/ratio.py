"""Alternating batches, ratios with their limits, and the table, for all benchmarks of cost.

A machine's speed changes from minute to minute, so a number of seconds says little. Whatever is compared here runs
in one process, in short batches that take turns, and each round of batches gives a ratio of its own; the median of
these is the figure.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from itertools import repeat
from typing import Final

#: Repeats a call a given number of times.
Batch = Callable[[int], object]

#: For each side, the time of one call in seconds, batch by batch.
Times = dict[str, list[float]]

#: How long a batch should take, in seconds: short, so that a round is over before the machine changes its pace.
BATCH: Final = 0.002


def repeated(call: Callable[[], object]) -> Batch:
    """Make a batch of something that is long enough for the call itself not to count."""

    def batch(number: int) -> None:
        for _ in repeat(None, number):
            call()

    return batch


def measure(sides: Mapping[str, Batch], rounds: int) -> Times:
    """Run the sides in turn, each round in another order: a batch feels what ran before it.

    All batches are of one length, since the first of a batch takes longer than the rest. Each side has a copy of the
    running context to itself: in a context that holds another side's variable as well, a ContextVar takes half as
    long again to set, and more where their hashes collide.

    Args:
        sides: the sides to compare, by name.
        rounds: how many batches of each.
    """
    runs = {name: _apart(batch) for name, batch in sides.items()}
    number = min(map(_number, runs.values()))
    times: Times = {name: [] for name in sides}
    names = list(sides)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            times[name].append(_seconds(runs[name], number) / number)
    return times


def _apart(batch: Batch) -> Batch:
    context = copy_context()
    return lambda number: context.run(batch, number)


def _number(batch: Batch) -> int:
    # By the quickest of several tries: one that was interrupted would make the batches too short.
    number = 1
    batch(number)  # the first use is not measured
    while (seconds := min(_seconds(batch, number) for _ in range(5))) < BATCH / 4:
        number *= 2
    return max(1, round(number * BATCH / seconds))


def _seconds(batch: Batch, number: int) -> float:
    started = time.perf_counter()
    batch(number)
    return time.perf_counter() - started


def rate(call: Callable[[], object], threads: int, warm: float, seconds: float) -> float:
    """Let threads do one thing again and again, and return how often a second it was done by all of them together.

    Args:
        call: the call that they repeat.
        threads: how many.
        warm: seconds before those that count.
        seconds: those that count.

    Raises:
        Exception: the error of ``call`` in one of them.
    """
    until = time.perf_counter() + warm + seconds

    def ends() -> list[float]:
        """Do it until the time is over, and return when each was done."""
        done: list[float] = []
        while not done or done[-1] < until:
            call()
            done.append(time.perf_counter())
        return done

    with ThreadPoolExecutor(threads) as executor:
        runs = [executor.submit(ends) for _ in range(threads)]
    return sum(until - seconds <= end < until for each in runs for end in each.result()) / seconds


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the comparison.
        figure: the ratio, or a count.
        limit: the most it may be; None where it may be anything.
        detail: where the figure comes from.
        least: the least that it may be; None where it may be anything.
        breakdown: lines that ``--verbose`` prints below.
    """

    name: str
    figure: float
    limit: float | None = None
    detail: str = ""
    least: float | None = None
    breakdown: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """``OVER``, ``UNDER`` or ``ok``, for the figure as printed; empty for a line without a limit."""
        figure = round(self.figure, 2)
        if self.limit is not None and figure > self.limit:
            return "OVER"
        if self.least is not None and figure < self.least:
            return "UNDER"
        return "" if self.limit is None and self.least is None else "ok"

    @property
    def is_missed(self) -> bool:
        """Whether the figure is on the wrong side of a limit."""
        return self.verdict in {"OVER", "UNDER"}

    def __str__(self) -> str:
        least = () if self.least is None else (f"≥{self.least:.2f}",)
        most = () if self.limit is None else (f"{self.limit:.2f}",)
        limit = " ".join((*least, *most))
        return f"{self.name:<58}{self.figure:>6.2f}{limit:>7}  {self.verdict:<7}{self.detail}".rstrip()


def ratio(
    name: str, times: Times, ours: str, against: str, *, floor: str | None = None, limit: float | None = None
) -> Row:
    """Make a row of how much longer one side takes than another: the median of the rounds' ratios.

    Args:
        name: of the comparison.
        times: the result of `measure`.
        ours: the side that should be short.
        against: the side it is held against.
        floor: a side that both contain; it is subtracted from both.
        limit: the most that the ratio may be.
    """
    floors = times[floor] if floor is not None else [0.0] * len(times[ours])
    above = [(a - c, b - c) for a, b, c in zip(times[ours], times[against], floors, strict=True)]
    low, middle, high = statistics.quantiles(a / b for a, b in above)
    a, b = (statistics.median(column) * 1e6 for column in zip(*above, strict=True))
    quick = _quick(ours, times, floor) / _quick(against, times, floor)
    detail = f"{a:.2f} µs against {b:.2f} µs; half the rounds {low:.2f} to {high:.2f}; quickest tenth {quick:.2f}"
    return Row(name, middle, limit, detail)


def _quick(side: str, times: Times, floor: str | None) -> float:
    # The undisturbed batches: if other processes use the processor often, medians mean little.
    return _tenth(times[side]) - (0.0 if floor is None else _tenth(times[floor]))


def _tenth(batches: list[float]) -> float:
    return statistics.quantiles(batches, n=10)[0]


def on_one_processor() -> None:
    """Keep this process on one processor, and those that it starts.

    Of a short query most is the server's waking up, which takes three times as long on another processor, and where
    the kernel puts it changes every few seconds.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def report(*benchmarks: Callable[[], Iterable[Row]], verbose: bool = False) -> int:
    """Run the benchmarks on one processor, and print their rows. Return how many miss a limit.

    Args:
        benchmarks: each yields its rows.
        verbose: whether to print the parts of a figure, too.
    """
    on_one_processor()
    missed = 0
    print(f"{'':<58}{'figure':>6}{'limit':>7}")
    for benchmark in benchmarks:
        for row in benchmark():
            print(row, *(row.breakdown if verbose else ()), sep="\n", flush=True)
            missed += row.is_missed
    if missed:
        print(f"{missed} missed")
    return missed
