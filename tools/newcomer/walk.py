"""What a newcomer does, each part in a clean container: README.md, the tutorials, the documentation site."""

from __future__ import annotations

import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tools.newcomer import pages
from tools.newcomer.terminal import StepError, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.newcomer.debian import Container, Image

LONGEST: Final = 600.0
"""For how many seconds a command may run. ``make test`` has longer."""

LONGEST_TEST: Final = 3600.0
TESTS: Final = "make test"
ERROR_IN_PYTHON = re.compile(r"^(?:Traceback \(most recent call last\)|\w+Error\b)", re.MULTILINE)
FALLBACK = re.compile(r"^No PostgreSQL: .*", re.MULTILINE)
"""What the demo says if it uses SQLite, because the servers do not start that come with the Python packages."""

NOT_PUBLISHED: Final = "replswitch is not published yet, so pip takes this checkout's wheel in place of the index."


class Row(NamedTuple):
    """A line of the table at the end.

    Attributes:
        step: what was done.
        result: what came of it.
        seconds: how long it took.
        is_good: whether it did what the page says.
    """

    step: str
    result: str
    seconds: float
    is_good: bool = True


class Walk:
    """All parts, and what came of them.

    Args:
        image: where containers come from.
        checkout: the folder of the project.
        logs: a folder for what the terminals show.
        say: prints a line for the user.
    """

    def __init__(self, image: Image, checkout: Path, logs: Path, say: Callable[[str], None]) -> None:
        self.rows: list[Row] = []
        self._image = image
        self._checkout = checkout
        self._logs = logs
        self._say = say
        self._wheel: Path | None = None

    def readme(self, *, with_tests: bool) -> None:
        """Type the commands that README.md gives first.

        Args:
            with_tests: ``make test``, too.
        """
        for line in pages.commands_of_readme((self._checkout / "README.md").read_text()):
            is_test = line.startswith(TESTS)
            if is_test and not with_tests:
                self._say(f"Not typed without --with-tests: {line}")
                continue
            self._in_container(line.partition("#")[0].strip(), partial(self._try, line))

    def site(self) -> None:
        """Type ``make docs``."""
        self._in_container("make docs", self._make_docs)

    def tutorial(self, name: str) -> None:
        """Type a tutorial.

        Args:
            name: its file in ``docs/``.
        """
        if self._wheel is None:
            self._in_container("a wheel for the tutorials", self._build_wheel)
        if self._wheel is not None:
            steps = list(pages.steps((self._checkout / "docs" / name).read_text()))
            self._in_container(name, partial(self._follow, steps, self._wheel))

    def _in_container(self, step: str, part: Callable[[Container, Path], tuple[str, float]]) -> None:
        log = self._logs / f"{step.replace(' ', '-')}.log"
        log.unlink(missing_ok=True)
        self._say(f"{step}: unpacking a clean container")
        began = time.monotonic()
        try:
            with self._image.container(self._checkout) as container:
                self._say(f"{step}: starting")
                began = time.monotonic()
                row = Row(step, *part(container, log))
        except StepError as error:
            row = Row(step, f"FAILED: {error}", time.monotonic() - began, is_good=False)
            self._say(f"{step}: FAILED: {error}\n  All that the terminal has shown is in {log}")
        else:
            self._say(f"{step}: {row.result} ({row.seconds:.1f} s)")
        self.rows.append(row)

    def _try(self, line: str, container: Container, log: Path) -> tuple[str, float]:
        with container.terminal(container.checkout, log) as terminal:
            began = time.monotonic()
            shown = terminal.type(line, LONGEST_TEST if line.startswith(TESTS) else LONGEST)
            seconds = time.monotonic() - began
            if shown.status is None:
                expect_success(line, shown.code, shown.text)
                return "exit code 0", seconds
            if shown.status != 200:
                raise StepError(f"{line}: the page answers {shown.status}")
            terminal.stop()
        if match := FALLBACK.search(shown.text):
            raise StepError(f"{line} serves, but not on the servers that README.md promises: {match[0]}")
        return f"the page answers {shown.status}; Ctrl-C stops it", seconds

    def _make_docs(self, container: Container, log: Path) -> tuple[str, float]:
        with container.terminal(container.checkout, log) as terminal:
            began = time.monotonic()
            shown = terminal.type("make docs", LONGEST)
            seconds = time.monotonic() - began
        expect_success("make docs", shown.code, shown.text)
        if "warning" in shown.text.lower():
            raise StepError(f"make docs warns: {shown.text.strip()}")
        if not container.inside(container.checkout / "build/site/index.html").exists():
            raise StepError("make docs has made no build/site/index.html")
        return "no warning; build/site/index.html is there", seconds

    def _build_wheel(self, container: Container, log: Path) -> tuple[str, float]:
        self._say(NOT_PUBLISHED)
        began = time.monotonic()
        with container.terminal(container.checkout, log) as terminal:
            for line in (
                "python3 -m venv /tmp/build",
                "/tmp/build/bin/pip wheel --no-deps --wheel-dir /root/wheels .",
            ):
                shown = terminal.type(line, LONGEST)
                expect_success(line, shown.code, shown.text)
        (built,) = container.inside(Path("/root/wheels")).glob("*.whl")
        self._wheel = Path(shutil.copy(built, self._logs))
        return built.name, time.monotonic() - began

    def _follow(self, steps: list[pages.Step], wheel: Path, container: Container, log: Path) -> tuple[str, float]:
        wheels = container.inside(Path("/root/wheels"))
        wheels.mkdir()
        shutil.copy(wheel, wheels)
        name, version, _ = wheel.name.split("-", 2)
        (wheels / "constraints.txt").write_text(f"{name}=={version}\n")
        folder = Path("/root/tutorial")
        container.inside(folder).mkdir()
        # Pages are followed in a new folder, and "in a second terminal, in the same folder".
        environment = {"PIP_FIND_LINKS": "/root/wheels", "PIP_CONSTRAINT": "/root/wheels/constraints.txt"}
        with (
            container.terminal(folder, log, **environment) as first,
            container.terminal(folder, log.with_suffix(".second.log")) as second,
        ):
            reader = Reader(first, second, container.inside(folder), self._say)
            began = time.monotonic()
            for step in steps:
                reader.follow(step)
            seconds = time.monotonic() - began
        checked = f", {reader.checked} outputs as the page shows" if reader.checked else ""
        return f"{len(steps)} steps typed{checked}", seconds


class Reader:
    """Somebody who follows a page, with two terminals.

    Args:
        first: the terminal in which the page's program runs.
        second: the terminal for everything that is typed while it runs.
        folder: the folder in which both are, as seen from the machine.
        say: prints a line for the user.

    Attributes:
        checked: how many outputs were compared with the page.
    """

    def __init__(self, first: Terminal, second: Terminal, folder: Path, say: Callable[[str], None]) -> None:
        self.checked = 0
        self._first = first
        self._second = second
        self._folder = folder
        self._say = say

    def follow(self, step: pages.Step) -> None:
        """Do one step.

        Raises:
            StepError: something else happened than the page says.
        """
        match step:
            case pages.Command(line, output):
                self._command(line, output)
            case pages.Code(text):
                self._code(text)
            case pages.File(name):
                file = self._folder / name
                try:
                    file.write_text(step.contents(file.read_text() if file.exists() else ""))
                except ValueError as error:
                    raise StepError(str(error)) from error
            case pages.Written(text):
                self._compare("the first terminal", text, self._first.written, whole=False)

    def _command(self, line: str, output: str) -> None:
        self._say(f"  $ {line}")
        if self._first.serves == line:  # "stop it, and start it again"
            self._first.stop()
        terminal = self._first if self._first.serves is None else self._second
        shown = terminal.type(line, LONGEST)
        if shown.status is None and shown.code:
            expect_success(line, shown.code, shown.text)
        if output:
            self._compare(line, output, shown.text, whole=shown.status is None)

    def _code(self, text: str) -> None:
        for line in pages.lines_to_type(text):
            if line.strip():
                self._say(f"  >>> {line}")
            shown = self._first.type(line, 60)
            if shown.code is not None:
                raise StepError(f"{line!r} is for Python, but the shell has answered: the page does not start Python")
            if ERROR_IN_PYTHON.search(shown.text):
                raise StepError(f"{line!r}: {shown.text.strip()}")

    def _compare(self, what: str, expected: str, shown: str, *, whole: bool) -> None:
        pattern = pages.pattern(expected)
        if not (pattern.fullmatch(shown.strip("\n")) if whole else pattern.search(shown)):
            raise StepError(f"{what} shows\n{shown.strip()}\nand not, as the page says,\n{expected.strip()}")
        self.checked += 1


def expect_success(line: str, code: int | None, text: str) -> None:
    """Check an exit code.

    Raises:
        StepError: it is not 0. The message ends with the last lines of the output.
    """
    if code != 0:
        last = "\n".join(text.strip().splitlines()[-15:])
        raise StepError(f"{line} has ended with the exit code {code}:\n{last}")
