"""The function `assert_reads_on`, for a block of a test that fails if it reads on the wrong side."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from replswitch.decision import MASTER, SLAVE
from replswitch.errors import ConfigurationError
from replswitch.place import application_place
from replswitch.watching import watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.decision import State
    from replswitch.watching import Statement

# The reads of Django's sessions and of its cache, which replswitch always sends to the master.
_ALWAYS_ON_MASTER: Final = frozenset({"session", "cache"})

# The number of reads that a message lists, and the number of characters that it shows of each.
_LISTED: Final = 20
_SHOWN: Final = 500


class Read(NamedTuple):
    """A read that has run in the block.

    Attributes:
        statement: the statement, with its server and the reason.
        place: the place in the application that ran it, as ``file:line in function``.
    """

    statement: Statement
    place: str

    def __str__(self) -> str:
        sql, database, side, server, reason = self.statement
        shown = " ".join(sql.split())
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        return f"{side} {server}, reason {reason}, database {database}\n    {shown}\n    at {self.place}"


class Reads:
    """The reads of a block.

    Attributes:
        right: the reads on the expected side.
        wrong: the other reads.
    """

    def __init__(self, side: State, database: str | None) -> None:
        self._side = side
        self._database = database
        self._others: set[str] = set()
        self.right: list[Read] = []
        self.wrong: list[Read] = []

    def observe(self, statement: Statement) -> None:
        """Keep a statement if it is a read on a database that is checked."""
        if not statement.is_read:
            return
        if self._database not in {None, statement.database}:
            self._others.add(statement.database)
        elif statement.side == self._side:
            self.right.append(Read(statement, application_place()))
        elif self._side == MASTER or statement.reason not in _ALWAYS_ON_MASTER:
            self.wrong.append(Read(statement, application_place()))

    def check(self) -> None:
        """Raise AssertionError if there is a read on the wrong side, or no read at all."""
        __tracebackhide__ = True
        side = f"{'the' if self._side == MASTER else 'a'} {self._side}"
        if self.wrong:
            number = len(self.wrong)
            listed = [f"\n{index}. {read}" for index, read in enumerate(self.wrong[:_LISTED], start=1)]
            more = f"\n… and {number - _LISTED} more" if number > _LISTED else ""
            which = f"{number} reads in the block" if number > 1 else "1 read in the block"
            raise AssertionError(f"{which} did not run on {side}:{''.join(listed)}{more}")
        if not self.right:
            of = "" if self._database is None else f" of the database {self._database!r}"
            others = f" It has read from: {', '.join(sorted(self._others))}." if self._others else ""
            raise AssertionError(
                f"The block was expected to read on {side}, but no read{of} was seen in it.{others} replswitch sees "
                "only the statements on its own connections, backends and sessions."
            )


@contextmanager
def assert_reads_on(side: State, database: str | None = None) -> Iterator[Reads]:
    """Fail if the block reads on the wrong side, or does not read at all.

    All statements of the process are checked, even those of a server that the test runs in a thread. A read is
    a statement that begins with SELECT, WITH, VALUES or TABLE, and neither writes nor locks rows. With ``"slave"``, the
    reads of `django_replswitch.sessions` and `django_replswitch.cache` are ignored, which are always on the master.

    Args:
        side: ``"master"`` or ``"slave"``.
        database: check only the database of this name. In Django, this is the alias. Elsewhere it is the option
            ``name`` of `replswitch.connect` and `replswitch.sqlalchemy.replicate`, or else the database's name on the
            server. By default, check all databases.

    Returns:
        the reads of the block, as `Reads`.

    Raises:
        AssertionError: the message lists the reads on the wrong side, each with its server, the reason and the line.
        ConfigurationError: ``side`` is neither of the two.
    """
    __tracebackhide__ = True
    if side not in {MASTER, SLAVE}:
        raise ConfigurationError(f'assert_reads_on() got {side!r}. It must be "master" or "slave".')
    reads = Reads(side, database)
    with watch(reads.observe):
        yield reads
    reads.check()
