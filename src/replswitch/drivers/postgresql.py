"""The common part of the drivers of PostgreSQL: positions, and the meanings of errors.

https://www.postgresql.org/docs/current/functions-admin.html and
https://www.postgresql.org/docs/current/functions-info.html have the functions that are used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from replswitch.drivers.driver import Fault
from replswitch.positions import PostgreSQLPosition
from replswitch.positions.clock import fall_back_to_clock

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from replswitch.positions import Position

#: Returns the position and the identity of a server, in one row.
#:
#: On a slave the timeline must be read after the place: the receiver may already be on the next one, so a place is
#: never taken for a later place of an earlier timeline. The last two places are what a slave has certainly applied. It
#: stores them when it writes pages to the disk, so they can be minutes old.
POSITION: Final = """\
SELECT system_identifier::text, extract(epoch FROM pg_postmaster_start_time())::text, pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text,
    CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
        ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END,
    current_setting('wal_block_size')::int, pg_size_bytes(current_setting('wal_segment_size')),
    min_recovery_end_timeline, min_recovery_end_lsn::text,
    EXISTS (SELECT FROM pg_stat_wal_receiver WHERE received_tli IS NULL)
FROM pg_control_system(), pg_control_recovery()"""


def position_of(row: Sequence[Any]) -> tuple[Hashable, Position | None]:
    """Return the identity and the position of a server from its answer to `POSITION`.

    The identity begins with the timeline: after a promotion, a slave counts as another server. All slaves
    have the system identifier of their master, so the time of the start distinguishes them.

    Raises:
        PositionError: the answer is not a position.
    """
    system, started, is_slave, place, timeline, page, segment, noted_timeline, noted_place, is_hidden = row
    if not is_slave:
        return (timeline, system, started), PostgreSQLPosition.after_insert(timeline, place, page=page, segment=segment)
    if is_hidden:
        fall_back_to_clock(
            "A slave does not show its timeline, because the account may not see the state of replication: GRANT"
            " pg_read_all_stats to it. Until then, a slave counts as having only what it has stored on its disk"
        )
    if timeline is None:  # no receiver runs, or it cannot be seen
        timeline, place = noted_timeline, noted_place
    reached = PostgreSQLPosition.parse(f"{timeline}:{place}") if timeline else None
    return (timeline, system, started), reached


#: The place up to which a master has written, for `PostgreSQLPosition.after_insert`. It must be asked after a commit: a
#: place from before can be reached on a slave while the commit is not applied.
WRITTEN: Final = "SELECT pg_current_wal_insert_lsn()"

#: Whether the open transaction has written. Functions that write count, an UPDATE of no rows does not.
WRITES: Final = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"

#: The codes of https://www.postgresql.org/docs/current/errcodes-appendix.html, by the meaning on a slave's connection.
FAULTS: Final = {
    "25006": Fault.REFUSED,  # read_only_sql_transaction; a standby refuses with it, too
    "40001": Fault.CONFLICT,  # serialization_failure: a conflict with replay
    "40P01": Fault.CONFLICT,  # deadlock_detected, with replay
    "0A000": Fault.CONFLICT,  # feature_not_supported: unlogged tables, and SERIALIZABLE, on a standby
    "42P01": Fault.UNDEFINED,  # undefined_table
    "42703": Fault.UNDEFINED,  # undefined_column
    "57P01": Fault.LOST,  # admin_shutdown: of the server, or of this session only
    "57P02": Fault.LOST,  # crash_shutdown: likewise
    "57P03": Fault.DOWN,  # cannot_connect_now
    "57P05": Fault.UNSENT,  # idle_session_timeout
    "53300": Fault.FULL,  # too_many_connections
}

#: Codes that mean nothing special on the master: the application ends the transaction, or a part of it.
ON_SLAVES_ONLY: Final = frozenset({"40001", "40P01", "0A000"})

_LETS_WRITE: Final = re.compile(
    r"\bREAD\s+WRITE\b|\b(?:default_)?transaction_read_only'?\s*(?:=|\bTO\b|,)\s*'?(?:0|of|f|n)", re.IGNORECASE
)

#: The lag of a slave in seconds, whether it is a slave, and whether its receiver runs; None if that cannot be seen.
BEHIND: Final = """\
SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE greatest(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END::float,
    pg_is_in_recovery(),
    (SELECT status = 'streaming' FROM pg_stat_wal_receiver UNION ALL SELECT false LIMIT 1)"""


def lets_write(sql: str) -> bool:
    """Return whether a statement would end the read-only mode of a slave's connection (S7)."""
    return _LETS_WRITE.search(sql) is not None
