"""Query the lag of a slave of PostgreSQL in seconds.

https://www.postgresql.org/docs/current/monitoring-stats.html describes the views, and
https://www.postgresql.org/docs/current/functions-admin.html the functions of recovery.
"""

from __future__ import annotations

from typing import Final

# The age of the latest commit that the slave has applied. The oldest commit that it lacks is not older. It is infinite
# if the slave has applied no commit since its start.
_AGE: Final = (
    "greatest(coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float, 'Infinity'), 0)"
)

# Whether replay waits for WAL to arrive, because it has applied each record that was received in full. While replay is
# paused, delayed or blocked by a session, it waits for something else.
_WAITS_FOR_WAL: Final = (
    "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryWalStream')"
)

#: Queries the lag of a slave in seconds, whether the server is a slave, and whether its WAL receiver runs. The last
#: value is None if the account may not see the receiver.
#:
#: ``reported`` is the place that the master has reported. The lag is 0 if the slave has applied all up to this place,
#: or all records before it that are complete. While a transaction writes, the place is often in the middle of a record,
#: because the master then sends whole pages. If the slave reaches the place during a wait of 0.1 s, the lag is 0.1.
#: Otherwise, the lag is the age of the latest commit that the slave has applied, which is too high if the slave is more
#: than 0.1 s behind and that commit is old. The master may also have reported no place yet. This lasts for half of
#: ``wal_receiver_timeout`` at most, if the slave was started at the end of a WAL file and the master is idle.
#:
#: pg_last_wal_receive_lsn() alone would not do. After a restart of the slave, it is too low until the master writes
#: again, and on a slow network it is far behind what the master has written.
BEHIND: Final = f"""\
WITH receiver AS MATERIALIZED (
    SELECT status, latest_end_lsn AS reported, flushed_lsn >= latest_end_lsn AS has_all FROM pg_stat_wal_receiver
)
SELECT CASE
        WHEN status IS DISTINCT FROM 'streaming' THEN {_AGE}
        WHEN reported <= pg_last_wal_replay_lsn() THEN 0
        WHEN {_AGE} < 1 THEN {_AGE}
        WHEN has_all AND {_WAITS_FOR_WAL} THEN 0
        WHEN pg_sleep(0.1) IS NULL THEN NULL
        WHEN reported <= pg_last_wal_replay_lsn() THEN 0.1
        WHEN has_all AND {_WAITS_FOR_WAL} THEN 0.1
        ELSE {_AGE}
    END::float,
    pg_is_in_recovery(),
    (SELECT status = 'streaming' FROM receiver UNION ALL SELECT false LIMIT 1)
FROM (SELECT) AS one_row LEFT JOIN receiver ON true"""  # noqa: S608 - only the constants above
