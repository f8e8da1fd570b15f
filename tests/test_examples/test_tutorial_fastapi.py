"""docs/tutorial-fastapi.md: a reader writes its files, runs its commands, and sees what the page shows.

A block ``py`` is a file, whose name is in its first line, or a line of it that changes. The other blocks are commands
with their output, or what the server has written. ``…`` is any text.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.test_asgi.conftest import required
from tests.test_examples.running import ROOT, SOURCES, end, temporary_folder

from replswitch.testing.launch import free_port

for module in ("fastapi", "greenlet", "psycopg", "uvicorn"):
    required(module)

BLOCKS = re.findall(
    r"^```(?:py)?\n(.*?)^```$", (ROOT / "docs" / "tutorial-fastapi.md").read_text(), re.MULTILINE | re.DOTALL
)


class Reader:
    """Somebody who follows the page in a folder.

    Attributes:
        port: replaces the port of the page, which may be in use.
        log: what the server has written, up to the time when it was stopped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = str(free_port())
        self.log = ""
        self._server: subprocess.Popen[str] | None = None
        self._has_slept = False

    def follow(self, block: str) -> None:
        block = block.replace("8000", self.port)
        if block.startswith("# "):
            self._write(block)
        elif block.startswith("$ "):
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                self._run(command, pattern(output))
        else:
            self.stop()
            assert re.search(pattern(block), self.log), self.log

    def _write(self, block: str) -> None:
        heading, _, code = block.partition("\n")
        name, _, is_change = heading.removeprefix("# ").partition(", ")
        file = self.folder / name
        if is_change:
            start, _, _ = code.partition(" = ")
            code, number = re.subn(rf"^{start} = .*\n", code, file.read_text(), flags=re.MULTILINE)
            assert number == 1, heading
        file.write_text(code)

    def _run(self, command: str, output: str) -> None:
        program, *arguments = command.split()
        if command == "python run.py":
            self._serve(output)
        elif program == "pip":
            assert all(version(re.split(r"[\[']", each.lstrip("'"))[0]) for each in arguments[1:])
        elif program == "curl":
            self._visit(command, output)
        else:
            assert program in {"python3", ".", "sleep"}, command
            self._has_slept = program == "sleep"

    def _serve(self, output: str) -> None:
        self.stop()
        self._server = subprocess.Popen(
            [sys.executable, "-u", "run.py"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES), "TMPDIR": str(self.folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._server.stderr is not None
        self.log = ""
        for line in self._server.stderr:
            self.log += line
            if "Uvicorn running" in line:
                break
        assert re.search(output, self.log), self.log

    def stop(self) -> None:
        if self._server is not None:
            self.log += end(self._server, signal.SIGINT)[1]
            self._server = None

    def _visit(self, command: str, output: str) -> None:
        deadline = time.monotonic() + (30 if self._has_slept else 0)  # a lag may be longer than the page says
        self._has_slept = False
        while True:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, check=True, timeout=30
            )
            shown = done.stdout.replace("\r", "")
            if re.fullmatch(output, shown, re.DOTALL):
                return
            assert time.monotonic() < deadline, f"{command}\n{shown}\n{self.log}"
            time.sleep(0.2)


def pattern(shown: str) -> str:
    """Return the regular expression for what the page shows."""
    return ".*".join(map(re.escape, shown.rstrip("\n").split("…")))


@pytest.mark.timeout(300)  # it starts three pairs of servers, and waits for the lag twice
@pytest.mark.usefixtures("postgresql_pair_of_session")  # skips the test if there is no PostgreSQL, except in CI
def test_the_steps_of_the_fastapi_tutorial_give_the_output_on_its_page() -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with temporary_folder() as folder:
        reader = Reader(folder)
        try:
            for block in BLOCKS:
                reader.follow(block)
        finally:
            reader.stop()
        names = {path.name for path in folder.iterdir()} - {"__pycache__"}
        assert names == {"run.py", "models.py", "database.py", "main.py", "jar"}, "the servers have left files"
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
