"""The command ``tools/try-in-container``."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.newcomer import pages
from tools.newcomer.debian import PACKAGES, Image
from tools.newcomer.terminal import StepError
from tools.newcomer.walk import Row, Walk

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

ROOT: Final = Path(__file__).resolve().parents[2]
TUTORIALS: Final = sorted((path.name for path in (ROOT / "docs").glob("tutorial*.md")), key=len)
PARTS: Final = ("readme", *(name.removesuffix(".md") for name in TUTORIALS), "docs")


def main() -> int:
    """Do what the command line says. Return the exit code: 1 if a part failed, 2 if the machine lacks something."""
    options = parse(sys.argv[1:])
    chosen = options.part or list(PARTS)
    if options.show:
        show(chosen)
        return 0
    signal.signal(signal.SIGTERM, interrupt)
    try:
        check_machine()
        image, walk = prepare(options)
    except StepError as error:
        print(f"tools/try-in-container: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        if "readme" in chosen:
            walk.readme(with_tests=options.with_tests)
        for name in TUTORIALS:
            if name.removesuffix(".md") in chosen:
                walk.tutorial(name)
        if "docs" in chosen:
            walk.site()
    except KeyboardInterrupt:
        say("Stopped.")
    print(table(f"Debian {image.suite} with {', '.join(PACKAGES)}", walk.rows))
    return 0 if walk.rows and all(row.is_good for row in walk.rows) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/try-in-container",
        description="Do in a clean Debian, which has Python and make but nothing else, what a newcomer does first: the"
        " commands of README.md, the tutorials typed line by line, and `make docs`. Each part gets a new container with"
        " a clone of the last commit. At the end, a table says how long each part took. Needs root on Debian or Ubuntu"
        " (no Docker) and a network. The image is kept in ~/.cache/replswitch/debian for a week.",
    )
    parser.add_argument("part", nargs="*", type=part, help=f"one of: {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--with-tests", action="store_true", help="type `make test`, too, which takes a quarter of an hour"
    )
    parser.add_argument("--suite", default="bookworm", help="Debian's release (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make a new image, even if there is one of this week")
    parser.add_argument("--show", action="store_true", help="print what would be typed, and do nothing")
    return parser.parse_args(arguments)


def part(name: str) -> str:
    """Return the name of a part."""
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return name


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Treat a signal as Ctrl-C, so that the containers are removed."""
    raise KeyboardInterrupt


def show(chosen: list[str]) -> None:
    """Print what would be typed."""
    if "readme" in chosen:
        print(
            "README.md",
            *(f"  $ {line}" for line in pages.commands_of_readme((ROOT / "README.md").read_text())),
            sep="\n",
        )
    for name in TUTORIALS:
        if name.removesuffix(".md") not in chosen:
            continue
        print(name)
        for step in pages.steps((ROOT / "docs" / name).read_text()):
            match step:
                case pages.Command(line):
                    print(f"  $ {line}")
                case pages.Code(text):
                    print(*(f"  >>> {line}".rstrip() for line in pages.lines_to_type(text)), sep="\n")
                case pages.File(file, is_change=is_change):
                    print(f"  ({'changes' if is_change else 'writes'} {file})")
                case pages.Written():
                    print("  (looks into the first terminal)")
    if "docs" in chosen:
        print("make docs", "  $ make docs", sep="\n")


def check_machine() -> None:
    """Check that containers can be made here.

    Raises:
        StepError: the message says what is missing.
    """
    if os.geteuid() != 0:
        raise StepError("only root can make a container: run it as root, for example with sudo")
    if shutil.which("debootstrap") is None:
        subprocess.run([ROOT / "tools" / "apt-install", "debootstrap"], check=False)
    missing = [each for each in ("debootstrap", "git", "tar", "unshare", "chroot") if shutil.which(each) is None]
    if missing:
        raise StepError(
            f"the machine lacks {', '.join(missing)} (Debian, Ubuntu: apt-get install debootstrap git util-linux)"
        )


def prepare(options: argparse.Namespace) -> tuple[Image, Walk]:
    """Make the image, unless it is there."""
    logs = ROOT / "build" / "try-in-container"
    logs.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%h %s"], stdout=subprocess.PIPE, text=True, check=False
    ).stdout.strip()
    if not commit:
        raise StepError(f"{ROOT} is no git checkout: the containers get a clone of it")
    say(f"Trying the commit {commit}")
    if subprocess.run(["git", "-C", ROOT, "diff", "--quiet", "HEAD"], check=False).returncode:
        say("Changes that are not committed are not tried")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replswitch" / "debian"
    log = logs / "image.log"
    log.unlink(missing_ok=True)
    image = Image(options.suite, cache, log, say)
    image.make(fresh=options.fresh)
    return image, Walk(image, ROOT, logs, say)


def table(title: str, rows: list[Row]) -> str:
    """Return the table at the end."""
    width = max((len(row.step) for row in rows), default=0)
    lines = [f"  {row.step:{width}}  {row.seconds:7.1f} s  {row.result.splitlines()[0]}" for row in rows]
    return "\n".join(["", title, *lines])


def say(line: str) -> None:
    """Print a line at once, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
