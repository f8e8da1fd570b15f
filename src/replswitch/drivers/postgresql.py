"""The common part of the drivers of PostgreSQL: positions.

https://www.postgresql.org/docs/current/functions-admin.html and
https://www.postgresql.org/docs/current/functions-info.html have the functions that are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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
    have the system identifier of their master, but each was started at a moment of its own.

    Raises:
        PositionError: the answer is not a position.
    """
    system, started, is_slave, place, timeline, page, segment, noted_timeline, noted_place, is_hidden = row
    if not is_slave:
        return (timeline, system, started), PostgreSQLPosition.after_insert(timeline, place, page=page, segment=segment)
    if is_hidden:
        fall_back_to_clock(
            "A slave does not show its timeline, because the account may not see the state of replication: GRANT"
            " pg_read_all_stats to it. Until then, a slave counts as having only what it has noted on its disk"
        )
    if timeline is None:  # no receiver runs, or it cannot be seen
        timeline, place = noted_timeline, noted_place
    reached = PostgreSQLPosition.parse(f"{timeline}:{place}") if timeline else None
    return (timeline, system, started), reached
