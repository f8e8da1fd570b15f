"""Where the servers were read: their own logs of statements, counted."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replswitch.testing import MariaDBPair

#: A read of a table. A query of variables or positions has no FROM, and a locking read belongs on the master.
COUNT: Final = """
SELECT COUNT(*) FROM mysql.general_log
WHERE user_host LIKE %s AND command_type IN ('Query', 'Execute')
AND argument REGEXP '^[[:space:](]*SELECT' AND argument REGEXP '[[:space:]]FROM[[:space:]]'
AND argument NOT LIKE '%%FOR UPDATE%%' AND argument NOT LIKE '%%information_schema%%'
"""


@dataclass(slots=True)
class Reads:
    """How many statements read.

    Attributes:
        master: on the master.
        slave: on the slaves.
    """

    master: int = 0
    slave: int = 0

    @property
    def share(self) -> float:
        """The share of the slaves."""
        return self.slave / max(1, self.master + self.slave)


@contextmanager
def counted(pair: MariaDBPair) -> Iterator[Reads]:
    """Count the reads of the application's user while a block runs; the figures are there when it ends."""
    reads = Reads()
    for name in pair.names:
        _run(pair, name, "SET GLOBAL log_output = 'TABLE'")
        _run(pair, name, "SET GLOBAL general_log = ON")
    yield reads
    for name in pair.names:
        _run(pair, name, "SET GLOBAL general_log = OFF")
        found = _run(pair, name, COUNT, f"{pair.user}[%")
        if name == pair.master_name:
            reads.master += found
        else:
            reads.slave += found


def _run(pair: MariaDBPair, name: str, statement: str, *values: str) -> int:
    with closing(pair.admin(name)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
        return int(row[0]) if row else 0
