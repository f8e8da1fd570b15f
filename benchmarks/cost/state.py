"""What it costs to switch: `with switch.use_slave(): pass` against a bare ContextVar that is set and reset.

Both in one context, as in an application; how many variables a context holds changes what it costs to set one. The
cost of the loop around them is taken off both.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from itertools import repeat
from typing import TYPE_CHECKING

from cost.ratio import Row, measure, ratio
from replswitch import Switch
from replswitch.decorators import use_slave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cost.ratio import Times

ROUNDS = 400

# Variables of other libraries: decimal's, asgiref's, a tracer's …
OTHERS = 4

variable: ContextVar[str | None] = ContextVar("variable", default=None)
switch = Switch()


def loop(number: int) -> None:
    """Do nothing."""
    for _ in repeat(None, number):
        pass


def bare(number: int) -> None:
    """Set a ContextVar and reset it."""
    for _ in repeat(None, number):
        token = variable.set("slave")
        variable.reset(token)


def block(number: int) -> None:
    """Enter and leave a block outside any scope, which is a scope of its own."""
    for _ in repeat(None, number):
        with switch.use_slave():
            pass


def inner_block(number: int) -> None:
    """Enter and leave a block inside another one."""
    with switch.use_master():
        block(number)


def pair(number: int) -> None:
    """Switch and revert without a block."""
    for _ in repeat(None, number):
        switch.use_slave()
        switch.revert()


def every_database(number: int) -> None:
    """Enter and leave a block that switches every database."""
    for _ in repeat(None, number):
        with use_slave():
            pass


def state(number: int) -> None:
    """Ask for the state."""
    with switch.use_slave():
        for _ in repeat(None, number):
            switch.state  # noqa: B018 - the read is measured


def in_an_application() -> Times:
    """Measure in a context as an application's: both variables are in it, and some of other libraries."""
    for number in range(OTHERS):
        ContextVar[int](f"other{number}").set(number)
    variable.set(None)
    with switch.use_slave():
        pass
    sides = (loop, bare, block, inner_block, pair, every_database, state)
    return measure({side.__name__: side for side in sides}, ROUNDS)


def rows() -> Iterator[Row]:
    """Yield the rows."""
    times = Context().run(in_an_application)
    alone = Context().run(measure, {side.__name__: side for side in (loop, bare, block)}, ROUNDS)
    for name, side, limit in (
        ("with switch.use_slave(): pass / ContextVar set and reset", "block", 4),
        ("  inside another block", "inner_block", 4),
        ("  use_slave() and revert()", "pair", None),
        ("  with use_slave(): of the decorators", "every_database", None),
        ("  reading switch.state", "state", None),
    ):
        yield ratio(name, times, side, "bare", floor="loop", limit=limit)
    yield ratio("  as the first, each alone in an empty context", alone, "block", "bare", floor="loop")
