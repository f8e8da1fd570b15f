"""The lag of the slave. Both servers are queried directly, so that the log has the queries of the board only."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replswitch.testing import PairError

if TYPE_CHECKING:
    from replswitch import Connection
    from replswitch.testing import ReplicatedPair


@dataclass(frozen=True, slots=True)
class Standing:
    """The messages of the two servers.

    Attributes:
        master: how many messages the master has.
        slave: how many the slave has.
        master_last: the number of the latest on the master; 0 without one.
        slave_last: the number of the latest on the slave; 0 without one.
        lacking: the numbers of those that the slave lacks, the oldest first.
        behind: seconds since the oldest of them was written; 0 when there is none.
    """

    master: int
    slave: int
    master_last: int
    slave_last: int
    lacking: tuple[int, ...]
    behind: float


def standing(pair: ReplicatedPair, db: Connection) -> Standing | None:
    """Compare the slave with the master; None when one of them does not answer."""
    try:
        on_slave = _messages(pair, "slave")
        on_master = _messages(pair, "master")
    except (PairError, db.Error):
        return None
    lacking = sorted(on_master.keys() - on_slave.keys())
    behind = max(0.0, time.time() - on_master[lacking[0]]) if lacking else 0.0
    return Standing(
        master=len(on_master),
        slave=len(on_slave),
        master_last=max(on_master, default=0),
        slave_last=max(on_slave, default=0),
        lacking=tuple(lacking),
        behind=behind,
    )


def _messages(pair: ReplicatedPair, name: str) -> dict[int, float]:
    with closing(pair.connect(name)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT id, written_at FROM message")
        return dict(cursor.fetchall())
