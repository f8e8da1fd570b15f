"""What is written in one database: recorded in the scope that wrote it, once that is known (M1)."""

from __future__ import annotations

import logging
from threading import get_ident
from typing import TYPE_CHECKING, Final

from replswitch.drivers import Written
from replswitch.errors import PositionError
from replswitch.positions.clock import fall_back_to_clock
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.drivers import Driver, Raw
    from replswitch.positions import Position
    from replswitch.scope import Scope

logger = logging.getLogger("replswitch.servers")


class Doubt:
    """Statements of a scope may have written: finds out when it is called with the scope.

    It does not keep the scope, which keeps it: in a circle the link would wait for Python's collector.

    Attributes:
        is_asked: what runs from now on is another doubt's.
    """

    __slots__ = ("_driver", "_raw", "_since", "_thread", "_writes", "is_asked")

    def __init__(self, writes: Writes, driver: Driver, raw: Raw) -> None:
        self._writes = writes
        self._driver = driver
        self._raw = raw
        self._since = driver.latest(raw)  # before the first of the statements
        self._thread = get_ident()
        self.is_asked = False

    def __call__(self, scope: Scope) -> None:
        """Find out, and record it in the scope."""
        self.is_asked = True
        if self._thread == get_ident():
            self._writes.settle(scope, self._driver, self._raw, self._since)
        else:  # which may be in the midst of another statement
            self._writes.record(scope, Written.YES)


class NoDoubt:
    """Stands where there is no doubt.

    Args:
        is_asked: see `Doubt`.
    """

    __slots__ = ("is_asked",)

    def __init__(self, *, is_asked: bool) -> None:
        self.is_asked = is_asked


#: Nothing is in doubt; a statement that follows may be.
SETTLED: Final = NoDoubt(is_asked=True)

# Statements run in no scope: nobody will ask about them, nor about those that follow.
_DISOWNED: Final = NoDoubt(is_asked=False)


class Writes:
    """The writes of one database.

    Args:
        key: what the database is called in scopes.
        name: what it is called in markers.
    """

    def __init__(self, key: Hashable, name: str) -> None:
        self.key = key
        self.name = name

    def record_write(self, position: Position | None = None) -> None:
        """Record in the running scope that a write was committed on the master, or may have been (M1).

        Args:
            position: from which on a slave has it; None where nobody knows.
        """
        frame = stack()
        if frame is not None:
            frame.scope.record(self.key, self.name, position)

    def look_for_writes(
        self, link: Hashable, driver: Driver, raw: Raw, scope: Scope | None = None, *, at_once: bool = False
    ) -> None:
        """Record what was committed through a link to the master since this was last asked.

        Args:
            link: to the master.
            driver: tells.
            raw: the link's connection.
            scope: in which it was committed; the running one by default.
            at_once: ask now, because the connection is about to be somebody else's.
        """
        written = driver.take_written(raw)
        if written is not Written.NO:
            self.record_told(link, driver, raw, written, scope, at_once=at_once)

    def record_told(
        self,
        link: Hashable,
        driver: Driver,
        raw: Raw,
        written: Position | Written,
        scope: Scope | None = None,
        *,
        at_once: bool = False,
    ) -> Doubt | NoDoubt:
        """Record what `Driver.take_written` has told; the other arguments are those of `look_for_writes`.

        Where the driver does not know, the server is asked before the scope reads from a slave, or answers.

        Returns:
            what stands for the statements that follow as well, as long as it is not asked, the scope is the same, and
            the driver says `Written.ASK` of them.
        """
        if scope is None:
            frame = stack()
            if frame is None:
                driver.disown_written(raw, with_rows=True)
                return _DISOWNED
            scope = frame.scope
        if written is not Written.ASK:
            self.record(scope, written)
            return SETTLED
        if at_once or scope.answered:  # nobody is going to ask in time
            self.settle(scope, driver, raw, driver.latest(raw))
            return SETTLED
        doubt = scope.doubted(link)
        if not isinstance(doubt, Doubt) or doubt.is_asked:
            doubt = Doubt(self, driver, raw)
            scope.doubt(link, doubt)
        return doubt

    def settle(self, scope: Scope, driver: Driver, raw: Raw, since: Position | None) -> None:
        """Ask the master whether something was written since, and record it in a scope if so."""
        written: Position | Written = Written.YES
        try:
            written = driver.ask_written(raw, since)
        except driver.module.Error as error:
            logger.info("The master did not say what was written: %s", error)
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
        self.record(scope, written)

    def record(self, scope: Scope, written: Position | Written) -> None:
        """Record in a scope what is known of its writes."""
        if written is not Written.NO:
            scope.record(self.key, self.name, None if isinstance(written, Written) else written)
