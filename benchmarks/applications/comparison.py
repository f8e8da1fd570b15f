"""How two runs of the same visitors differ: on the stock engine, and on ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from applications.visit import Step, Visit


class ScenarioError(Exception):
    """The visitors did not get along on the stock engine, so nothing can be compared."""


@dataclass(slots=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        requests: that were answered with our engine.
        worse: the steps that were answered worse than with the stock engine, with the answers.
        left_out: steps that could not be done, because a page before them was missing.
        missed: own writes that were not seen.
    """

    requests: int = 0
    worse: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def check_stock(visits: Sequence[Visit]) -> None:
    """See to it that all went well on the stock engine.

    Raises:
        ScenarioError: it did not; the message says where.
    """
    wrong = []
    for visit in visits:
        for step in visit.steps:
            bad = [str(answer) for answer in step.answers if not answer.good]
            if bad or step.missed or not step.answers:
                told = ", ".join([*bad, *step.missed]) or "there was no form, or no link"
                wrong.append(f"visitor {visit.number}, {step.label}: {told}")
    if wrong:
        raise ScenarioError("on the stock engine:\n  " + "\n  ".join(wrong))


def compare(stock: Sequence[Visit], ours: Sequence[Visit]) -> Comparison:
    """Compare the visits, step by step; both had the same visitors in the same order."""
    found = Comparison()
    for one, other in zip(stock, ours, strict=True):
        for before, now in zip(one.steps, other.steps, strict=True):
            place = f"visitor {other.number}, {now.label}"
            found.requests += len(now.answers)
            if not now.answers:
                found.left_out.append(place)
            elif worse := _worse(before, now):
                found.worse.append(f"{place}: {worse}")
            found.missed += [f"{place}: {told}{_decided(now)}" for told in now.missed]
    return found


def _worse(before: Step, now: Step) -> str:
    """Return the first request that was answered worse. The rest of a step follows from it."""
    for answer, stock in zip(now.answers, before.answers, strict=False):
        if answer.status != stock.status:
            return f"{answer} (stock: {stock.status})"
    if len(now.answers) != len(before.answers):
        return f"{len(now.answers)} answers (stock: {len(before.answers)})"
    return ""


def _decided(step: Step) -> str:
    decided = step.answers[-1].decided if step.answers else ""
    return f" [{decided}]" if decided else ""
