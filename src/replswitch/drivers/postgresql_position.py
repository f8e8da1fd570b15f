"""Query the positions of PostgreSQL's servers, and interpret the answers.

https://www.postgresql.org/docs/current/functions-admin.html and
https://www.postgresql.org/docs/current/functions-info.html describe the functions of the server that are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from replswitch.positions import PostgreSQLPosition
from replswitch.positions.clock import warn_once

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from replswitch.positions import Position

#: Returns the position and the identity of a server, in one row.
#:
#: On a slave, the place must be read before the timeline. In the other order, a promotion in between would combine a
#: place of the new timeline with the old timeline, and a lost write could count as reached. The columns
#: ``min_recovery_end_…`` are a place that a slave has certainly applied. The slave stores it when it writes pages to
#: the disk, so it can be minutes old.
POSITION: Final = """\
SELECT system_identifier::text, extract(epoch FROM pg_postmaster_start_time())::text, pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text,
    CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
        ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END,
    current_setting('wal_block_size')::int, pg_size_bytes(current_setting('wal_segment_size')),
    min_recovery_end_timeline, min_recovery_end_lsn::text,
    EXISTS (SELECT FROM pg_stat_wal_receiver WHERE received_tli IS NULL), pg_backend_pid(),
    pg_snapshot_xmax(pg_current_snapshot())::text
FROM pg_control_system(), pg_control_recovery()"""

#: Returns the timelines that have a WAL file for the last byte that a slave has applied, in an array. It is for a slave
#: without a WAL receiver, which applies only what is in its WAL files. The account needs the role pg_monitor.
#:
#: If a timeline begins in the middle of a file, the slave also keeps the file of the old timeline. Then the latest one
#: is used. A slave gets a file of a timeline only if it follows that timeline, and it follows none that begins before a
#: place which it has applied. So either it has applied a part of the latest timeline, or its place is before the
#: beginning of that timeline, and no write of that timeline has such a place.
FILES: Final = """\
SELECT array_agg(DISTINCT ('x' || substr(name, 1, 8))::bit(32)::bigint) FROM pg_ls_waldir()
WHERE name ~ '^[0-9A-F]{{24}}$' AND substr(name, 9) = '{file}'"""

#: Returns the place up to which a master has written, for `PostgreSQLPosition.after_insert`. It must be queried after
#: the commit, because a slave can reach an earlier place without having applied the commit.
WRITTEN: Final = "SELECT pg_current_wal_insert_lsn()"

#: Returns whether the open transaction has written, itself or through a function. An UPDATE of no rows does not write.
WRITES: Final = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"

_MOST_SERVERS: Final = 1000


class Timelines:
    """What this process has learned about the servers of one replicated database, from their answers to `POSITION`.

    Another database has an object of its own (P4). The two may be clones, and then they have the same system
    identifier, and timelines with the same numbers that begin at different places. If the whole set is restored from a
    backup, its timelines begin again, too. Then the object forgets what it has learned, as soon as the master answers
    with an earlier place than before.

    All threads share the object. It needs no lock, because a lost entry only means that less is known.

    Attributes:
        master: the system identifier and the start time of the server that was the last to answer as the master, and
            its place, as ``(timeline, bytes)``; None before the first answer.
    """

    def __init__(self) -> None:
        self.master: tuple[tuple[str, str], tuple[int, int]] | None = None
        # The latest certain position of each server that has answered as a master or as a standby, by its system
        # identifier and the time of its start. A position never goes back until its server is started again.
        self._certain: dict[tuple[str, str], PostgreSQLPosition] = {}
        # The places of earlier timelines that a timeline contains, by its system identifier and its number. If a server
        # has reported a place of an earlier timeline, and then reports the later one without a restart, the later
        # timeline began at or after that place.
        self._inherited: dict[tuple[str, int], PostgreSQLPosition] = {}

    def query_for_timeline(self, row: Sequence[Any]) -> str:
        """Return the query for the timeline of a slave without a WAL receiver; empty if the timeline is known.

        A slave that has applied nothing since its timeline was determined still follows that timeline.
        """
        if not row[2] or row[4] is not None or row[9] or not row[3]:
            return ""
        high, _, low = row[3].partition("/")
        place = int(high, 16) << 32 | int(low, 16)
        known = self._certain.get((row[0], row[1]))
        if known is not None and known.places[-1][1] == place:
            return ""
        number = (place - 1) // row[6]
        files = 2**32 // row[6]
        return FILES.format(file=f"{number // files:08X}{number % files:08X}")

    def position_of(
        self, row: Sequence[Any], timelines: Sequence[int] = (), *, is_reader: bool = False
    ) -> tuple[Hashable, Position | None]:
        """Return the identity and the position of a server from its answer to `POSITION`.

        The identity begins with the timeline, because a slave is treated as another server after its promotion. All
        slaves have the system identifier of their master, so the time of the start distinguishes them.

        A server that is configured as a slave but is not in recovery writes a log of its own, whose places say nothing
        about the writes of the master. Its position is returned only if it is known as a master of this database, or as
        a slave that was promoted.

        Args:
            row: the answer.
            timelines: the answer to the query of `query_for_timeline`, if it was sent.
            is_reader: the server was queried over a connection to a slave.

        Raises:
            PositionError: the answer is not a position.
        """
        system, started, is_slave, place, timeline, page, segment, stored_timeline, stored_place, is_hidden, *_ = row
        if not is_slave:
            own = PostgreSQLPosition.after_insert(timeline, place, page=page, segment=segment)
            if is_reader and (system, started) not in self._certain:
                return (timeline, system, started), None
            if not is_reader:
                self._replace_master((system, started), own.places[0])
            self._keep(system, started, own)
            return (timeline, system, started), own
        if is_hidden:
            warn_once(
                "A slave does not show its timeline, because the account may not see the state of replication. Run"
                " GRANT pg_monitor TO this account. Until then, replswitch uses the last position that a slave has"
                " stored on its disk, which can be minutes old."
            )
        if timeline is None and timelines and max(timelines) >= stored_timeline:
            timeline = max(timelines)
        if timeline is not None:
            own = PostgreSQLPosition.parse(f"{timeline}:{place}")
            return (timeline, system, started), self._keep(system, started, own)
        # No receiver runs, or the account may not see it.
        stored = PostgreSQLPosition.parse(f"{stored_timeline}:{stored_place}") if stored_timeline else None
        found = [each for each in (stored, self._certain.get((system, started))) if each is not None]
        if not found:
            return (None, system, started), None
        latest = max(found, key=lambda each: each.places[-1])
        ((timeline, _),) = latest.places[-1:]
        return (timeline, system, started), _with_history(latest, self._inherited.get((system, timeline)))

    def _replace_master(self, server: tuple[str, str], place: tuple[int, int]) -> None:
        """Store which server is the master. If the log has gone back to an earlier place, forget everything else.

        If a server that was not restarted reports a lower place, this is an older answer that has arrived late.
        """
        before, self.master = self.master, (server, place)
        if before is not None and before[0] != server and place < before[1]:
            self._certain.clear()
            self._inherited.clear()

    def _keep(self, system: str, started: str, own: PostgreSQLPosition) -> PostgreSQLPosition:
        """Store and return a position that a server has reached, with the places that it has on earlier timelines."""
        ((timeline, _),) = own.places
        before = self._certain.get((system, started))
        inherited = self._inherited.get((system, timeline))
        if before is not None and before.places[-1][0] < timeline:
            inherited = self._inherited[system, timeline] = before if inherited is None else before.merge(inherited)
        reached = _with_history(own, inherited)
        if len(self._certain) > _MOST_SERVERS:
            self._certain.clear()
        self._certain[system, started] = reached
        return reached


def _with_history(own: PostgreSQLPosition, inherited: PostgreSQLPosition | None) -> PostgreSQLPosition:
    """Return a position with those places of earlier timelines that the server has.

    Places continue from one timeline to the next. So if a server has applied only a part of an earlier timeline, this
    part ends at the server's own place.
    """
    if inherited is None:
        return own
    _, reached = own.places[-1]
    return own.merge(PostgreSQLPosition(tuple((timeline, min(place, reached)) for timeline, place in inherited.places)))
