"""Read from a page what a newcomer does: the commands, the Python code and the files, in the order of the page.

A page writes them as follows:

- A block without a language whose lines begin with ``$`` has commands, each with the output that it shows. ``…`` in an
  output is any text.
- A block ``python`` is typed into Python.
- A block ``py`` is a file. Its first line is a comment with the name: ``# main.py``. If it is ``# main.py, …``, the
  block is a line of that file that changes.
- Any other block is something that the program in the first terminal has written by then.
- An ``apt-get install …`` in backticks is a command, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Command(NamedTuple):
    """A line for the shell.

    Attributes:
        line: the line.
        output: what the page shows below it; empty if it shows nothing.
    """

    line: str
    output: str = ""


class Code(NamedTuple):
    """Lines for Python."""

    text: str


class File(NamedTuple):
    """A file to write.

    Attributes:
        text: the contents.
        is_change: ``text`` is one line. It replaces the line of the file that assigns to the same name.
    """

    name: str
    text: str
    is_change: bool = False

    def contents(self, old: str) -> str:
        """Return the new contents of the file.

        Args:
            old: its contents before; not used if the whole file is new.

        Raises:
            ValueError: not exactly one line assigns to the name.
        """
        if not self.is_change:
            return self.text
        start, _, _ = self.text.partition(" = ")
        new, number = re.subn(rf"^{re.escape(start)} = .*\n", lambda _: self.text, old, flags=re.MULTILINE)
        if number != 1:
            raise ValueError(f"{self.name} has {number} lines that begin with {start!r}")
        return new


class Written(NamedTuple):
    """Something that the program in the first terminal has written by then."""

    text: str


Step = Command | Code | File | Written

BLOCK_OR_PACKAGES = re.compile(
    r"^<!--.*?-->|^```(?P<language>\w*)\n(?P<block>.*?)^```$|`(?P<install>apt-get install [^`]+)`",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def steps(page: str) -> Iterator[Step]:
    """Yield what a reader of the page does."""
    for match in BLOCK_OR_PACKAGES.finditer(page):
        block = match["block"]
        if match["install"] is not None:
            yield Command(match["install"].replace("\n", " "))
        elif block is None:
            continue  # a comment, which the reader does not see
        elif match["language"] == "python":
            yield Code(block)
        elif match["language"] == "py":
            heading, _, text = block.partition("\n")
            name, _, change = heading.removeprefix("# ").partition(", ")
            yield File(name, text, is_change=bool(change))
        elif not match["language"] and block.startswith("$ "):
            for line, output in COMMAND.findall(block):
                yield Command(line, output)
        elif not match["language"]:
            yield Written(block)


def commands_of_readme(page: str) -> list[str]:
    """Return the lines of the first block without a language: what README.md says to try."""
    match = re.search(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line for line in match[1].splitlines() if line.strip()] if match else []


def pattern(shown: str) -> re.Pattern[str]:
    """Return the pattern of an output that a page shows; ``…`` is any text."""
    return re.compile(".*".join(map(re.escape, shown.strip("\n").split("…"))), re.DOTALL)


def lines_to_type(code: str) -> list[str]:
    """Return the lines that somebody types into Python. An empty line ends a block of indented lines."""
    lines = code.splitlines()
    return [*lines, ""] if lines and lines[-1].startswith((" ", "\t")) else lines
