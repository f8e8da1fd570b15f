"""The steps of a visitor, and what the visitor must see."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

from applications.forms import find

if TYPE_CHECKING:
    from applications.browser import Answer, Browser
    from applications.forms import Values

#: Seconds between two steps.
THINKS: Final = 0.15


@dataclass(slots=True)
class Step:
    """One click, or one form.

    Attributes:
        label: a description of the step.
        answers: to the request, and to those that redirects led to; none where a page before it was missing, so that
            there was no form to send or no link to follow.
        missed: the visitor's own writes that the pages did not show.
    """

    label: str
    answers: list[Answer] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def page(self) -> str:
        """The last page of the step; empty if it is an error."""
        return self.answers[-1].text if self.answers and self.answers[-1].good else ""

    @property
    def path(self) -> str:
        """The address of the last page."""
        return self.answers[-1].path if self.answers else ""

    @property
    def wrote(self) -> bool:
        """Whether a form was taken: these applications redirect then, and show the form again otherwise."""
        return bool(self.answers) and self.answers[0].method == "POST" and self.answers[0].redirects


class Visit:
    """The steps of one visitor.

    What must be seen of a write (``shows``), or must be gone (``lacks``), is looked for only where the write itself
    was done and the page is no error: an error is counted as such, and not twice.

    Args:
        browser: the visitor's.
        number: of the visitor.
        rests: seconds of a rest, in which the slaves catch up.
    """

    def __init__(self, browser: Browser, number: int, rests: float) -> None:
        self._browser = browser
        self._rests = rests
        self.number = number
        self.steps: list[Step] = []

    def open(
        self, label: str, path: str, of: Step | None = None, shows: tuple[str, ...] = (), lacks: tuple[str, ...] = ()
    ) -> Step:
        """Open a page.

        Args:
            label: a description of the step.
            path: of the page; empty where it was to be found on a page that is missing.
            of: the step with the write to look for.
            shows: a text that the page must have.
            lacks: a text that it must not have.
        """
        step = Step(label)
        if path:
            step.answers = self._browser.open(path)
        return self._done(step, of or step, shows, lacks)

    def send(
        self,
        label: str,
        at: Step,
        form: str,
        values: Values,
        shows: tuple[str, ...] = (),
        lacks: tuple[str, ...] = (),
    ) -> Step:
        """Fill in a form and send it.

        Args:
            label: a description of the step.
            at: the step that led to the page with the form.
            form: its id, the name of one of its fields, or the end of its action.
            values: the input of the form.
            shows: a text that the next page must have.
            lacks: a text that it must not have.
        """
        step = Step(label)
        found = find(at.page, form)
        if found is not None:
            step.answers = self._browser.open(urljoin(at.path, found.action), found.filled(values))
        return self._done(step, step, shows, lacks)

    def rest(self) -> None:
        """Do nothing until the slaves have caught up."""
        time.sleep(self._rests)

    def _done(self, step: Step, of: Step, shows: tuple[str, ...], lacks: tuple[str, ...]) -> Step:
        if of.wrote and step.page:
            step.missed = [f"shows no {text!r}" for text in shows if text not in step.page]
            step.missed += [f"still shows {text!r}" for text in lacks if text in step.page]
        self.steps.append(step)
        time.sleep(THINKS)
        return step
