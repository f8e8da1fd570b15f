"""Counts the calls of Python functions in our own files, by `sys.setprofile`.

A call is an event ``call`` of the profiler whose code stands in a file of the packages `OURS`: a function, a method, a
property, a lambda, a comprehension where Python runs it as a function (before 3.12), and each time that a generator is
resumed. What is written in C is none, and neither is what Python generates itself (the constructor of a dataclass or of
a named tuple).

What stands in ``replswitch/drivers/`` is both ours and the driver's: a subclass of PyMySQL's connection overrides what
PyMySQL calls. So a call there counts as ours where our own code has made it, and is listed as the driver's where the
driver's code, or anything else, has.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

#: The packages whose functions are counted, those that are not installed aside.
OURS: Final = ("replswitch", "django_replswitch", "flask_replswitch")

#: The beginning of the files whose functions a driver may call.
_DRIVERS: Final = "replswitch/drivers/"


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls while something ran.

    Attributes:
        ours: how often each of our functions was called, by ``file:function``.
        drivers: the same for those in ``replswitch/drivers/`` that the driver has called.
    """

    ours: Counter[str] = field(default_factory=Counter)
    drivers: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, ours: dict[str, int], drivers: dict[str, int]) -> Calls:
        """Create an object from the result of `as_pair`, in another process."""
        return cls(Counter(ours), Counter(drivers))

    def as_pair(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the arguments of `of`."""
        return dict(self.ours), dict(self.drivers)

    @property
    def files(self) -> set[str]:
        """The files of ours in which something was called."""
        return {name.partition(":")[0] for name in self.ours}

    def breakdown(self) -> tuple[str, ...]:
        """Return a line for each function: ours first, then the driver's; each group by the number of calls."""
        return tuple(
            f"{number:>6}  {name}{note}"
            for counter, note in ((self.ours, ""), (self.drivers, "  (called by the driver)"))
            for name, number in sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        )


@contextmanager
def counted() -> Iterator[Calls]:
    """Count the calls that this thread makes in a ``with`` block."""
    calls = Calls()
    if sys.getprofile() is not None:
        raise RuntimeError("Another profiler is running.")
    sys.setprofile(_profiler(calls))
    try:
        yield calls
    finally:
        sys.setprofile(None)


def _profiler(calls: Calls) -> Callable[[FrameType, str, Any], None]:
    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (name := _name(frame.f_code)) is not None:
            (calls.ours if _is_called_by_us(frame) else calls.drivers)[name] += 1

    return profile


def _is_called_by_us(called: FrameType) -> bool:
    """Say whether a call counts as ours: the nearest caller outside ``replswitch/drivers/`` decides."""
    frame: FrameType | None = called
    while frame is not None and (name := _name(frame.f_code)) is not None:
        if not name.startswith(_DRIVERS):
            return True
        frame = frame.f_back
    return False


@cache
def _name(code: CodeType) -> str | None:
    """Return ``file:function`` for our code, else None."""
    for folder in _folders():
        if code.co_filename.startswith(folder):
            path = Path(code.co_filename).relative_to(Path(folder).parent)
            return f"{path.as_posix()}:{code.co_qualname}"
    return None


@cache
def _folders() -> tuple[str, ...]:
    specs = (find_spec(name) for name in OURS)
    return tuple(f"{folder}/" for spec in specs if spec is not None for folder in spec.submodule_search_locations or ())
