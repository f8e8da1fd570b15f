"""A terminal inside a container: type a line, and read what it shows until the next prompt."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PROMPT: Final = "[exit $?]$ "
"""The prompt of the shell: bash replaces ``$?`` by the exit code of the last command."""

AT_PROMPT = re.compile(r"(?:\(\S+\) )?\[exit (?P<code>\d+)\]\$ \Z|^(?:>>> |\.\.\. )\Z", re.MULTILINE)
"""The end of the output if the shell or Python waits for a line. An active virtual environment adds ``(.venv)``."""

QUESTION = re.compile(r"\[Y/n\] \Z")
ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):\d+")
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>])|\r")
CTRL_C: Final = b"\x03"
COLUMNS: Final = 1000  # so that no line is broken


class StepError(Exception):
    """What was typed did not do what the page says. The message is for the user."""


class Shown(NamedTuple):
    """What a terminal has shown after a line.

    Attributes:
        text: the output, without the line itself and without the prompt.
        code: the exit code; None if Python has shown its prompt, or if the program still runs.
        status: the HTTP status of the program's page; None if the program does not serve.
    """

    text: str
    code: int | None = None
    status: int | None = None


class Terminal:
    """An interactive bash, on a terminal of its own.

    Args:
        argv: the command that starts bash inside the container.
        log: a file to which everything is appended that the terminal shows.

    Attributes:
        serves: the line whose program serves at the moment.
    """

    def __init__(self, argv: list[str], log: Path) -> None:
        self.serves: str | None = None
        self._text = ""
        self._log = log.open("a", encoding="utf-8")
        self._end, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        self._process = subprocess.Popen(argv, stdin=end, stdout=end, stderr=end, start_new_session=True)
        os.close(end)
        self._wait("the shell of the container", 60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()  # unshare then kills all that it has started
        self._process.wait()
        os.close(self._end)
        self._log.close()

    def type(self, line: str, seconds: float) -> Shown:
        """Type a line and Return. Wait for the next prompt, or until a program serves a page.

        Args:
            line: the line.
            seconds: how long this may take.

        Raises:
            StepError: it took longer, or the shell has ended.
        """
        self._text = ""
        os.write(self._end, f"{line}\n".encode())
        shown = self._wait(line, seconds)
        if shown.status is not None:
            self.serves = line
        return shown

    def stop(self) -> Shown:
        """Press Ctrl-C, and wait for the prompt."""
        line, self.serves = self.serves, None
        os.write(self._end, CTRL_C)
        return self._wait(f"{line}, after Ctrl-C,", 60, may_serve=False)

    @property
    def written(self) -> str:
        """What was shown since the last line was typed."""
        while self._read(0.2):
            pass
        return self._text.partition("\n")[2]  # the first line is what was typed

    def _wait(self, line: str, seconds: float, *, may_serve: bool = True) -> Shown:
        deadline = time.monotonic() + seconds
        while True:
            self._read(0.1)
            if match := AT_PROMPT.search(self._text):
                text = self._text[: match.start()].partition("\n")[2]
                return Shown(text, code=int(match["code"]) if match["code"] else None)
            if may_serve and (address := ADDRESS.search(self._text)) and (status := status_of(address[0])):
                return Shown(self.written, status=status)
            if QUESTION.search(self._text):
                self._text += "Y"
                os.write(self._end, b"Y\n")
            if self._process.poll() is not None:
                raise StepError(f"{line}: the shell has ended: {self._text.strip()}")
            if time.monotonic() > deadline:
                raise StepError(f"{line} has not ended after {seconds:.0f} seconds")

    def _read(self, seconds: float) -> bool:
        """Read what comes next within so many seconds. Return whether something came."""
        if not select.select([self._end], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._end, 65536)
        except OSError:  # the other end is closed
            return False
        text = ESCAPES.sub("", data.decode(errors="replace"))
        self._text += text
        self._log.write(text)
        self._log.flush()
        return bool(data)


def status_of(address: str) -> int | None:
    """Return the status with which a page answers; None if nothing answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None
