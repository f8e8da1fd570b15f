"""What the tests ask of a server: they are written in the SQL of MariaDB, and `translated` has that of the others."""

from __future__ import annotations

import re
import time
from contextlib import closing
from typing import Any, Final, TypeAlias

import pytest
from tests.ended_links import kill
from tests.test_django.project.served import PROJECT

from replswitch.testing import MariaDBPair, PostgreSQLPair
from replswitch.testing.processes import is_readable

Pair: TypeAlias = MariaDBPair | PostgreSQLPair

IS_POSTGRESQL: Final = PROJECT.backend == "postgresql"

only_mariadb = pytest.mark.skipif(IS_POSTGRESQL, reason="PostgreSQL has no such thing")
"""Marks a test of something that only MariaDB and MySQL have."""

only_postgresql = pytest.mark.skipif(not IS_POSTGRESQL, reason="only PostgreSQL has such a thing")

REFUSED: Final = "in a read-only transaction" if IS_POSTGRESQL else "(1792, "
"""The server's words for a write on a slave's link."""

LOCKED: Final = "could not obtain lock" if IS_POSTGRESQL else "Lock wait timeout"
"""Its words for a row that another transaction has locked."""

REFUSED_OPTIONS: Final = {"sslmode": "require"} if IS_POSTGRESQL else {"init_command": "SELECT nothing"}
"""Options with which no connection can be opened."""

AUTOCOMMIT: Final = -10_001
IN_TRANSACTION: Final = -10_002

WORDS: Final = {
    "@@tx_read_only": "current_setting('transaction_read_only')::bool::int",
    # PostgreSQL cannot show them in a row. `shown` puts in what the driver knows.
    "@@autocommit": str(AUTOCOMMIT),
    "@@in_transaction": str(IN_TRANSACTION),
    "@@port": "inet_server_port()",
    "KILL CONNECTION_ID()": "SELECT pg_terminate_backend(pg_backend_pid())",
    "CURRENT_USER()": "CURRENT_USER || '@%'",
    "DATABASE()": "current_database()",
    "ANALYZE TABLE project_tag": "COMMENT ON TABLE project_tag IS 'tags'",  # ANALYZE writes nothing there
    "information_schema.innodb_trx": "(SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%') AS found",
    "shop.late": "late",
    "`": '"',
}
"""PostgreSQL's words, by MariaDB's."""

VARIABLE: Final = re.compile(r"@(\w+) := (\w+)|SET @(\w+)|(?<!@)@(\w+)")
KNOWN: Final = re.compile("|".join(map(re.escape, WORDS)))

FUNCTIONS: Final = (
    "CREATE FUNCTION SLEEP(float) RETURNS int LANGUAGE sql AS 'SELECT pg_sleep($1); SELECT 0'",
    "CREATE FUNCTION CONNECTION_ID() RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()'",
)
"""What PostgreSQL lacks."""

TABLES: Final = "'^(project_|django_session)'"

EMPTIED: Final = f"""\
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE tablename ~ {TABLES} LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
END $$
"""
"""Deletes all rows, in one round trip. TRUNCATE makes new files for each table and its indexes, on each server."""


_sessions: dict[tuple[int, str, str], Any] = {}


def translated(sql: str) -> str:
    """Return a statement in the SQL of the project's server."""
    if not IS_POSTGRESQL:
        return sql
    return VARIABLE.sub(_variable, KNOWN.sub(lambda found: WORDS[found[0]], sql))


def _variable(found: re.Match[str]) -> str:
    name, value, set_name, read = found.groups()
    if name:
        return f"set_config('my.{name}', '{value}', false)::int"
    return f"SET my.{set_name}" if set_name else f"current_setting('my.{read}', true)::int"


def variable(name: str, value: int) -> dict[str, str]:
    """Return OPTIONS that set a variable of each session, ``@name``."""
    return {"options": f"-c my.{name}={value}"} if IS_POSTGRESQL else {"init_command": f"SET @{name} = {value}"}


def shown(db: Any, row: Any) -> Any:
    """Put into a row what PostgreSQL cannot show, as the driver of a connection knows it."""
    if not IS_POSTGRESQL or row is None:
        return row
    is_open = db.selected is not None and db.driver.in_transaction(db.selected.raw)
    known = {AUTOCOMMIT: int(not is_open), IN_TRANSACTION: int(is_open)}
    return tuple(known.get(value, value) if isinstance(value, int) else value for value in row)


def number_of(raw: Any) -> int:
    """Return the server's number of a driver's connection."""
    return int(raw.info.backend_pid if IS_POSTGRESQL else raw.thread_id())


def databases_like(pair: Any, server: str, pattern: str) -> list[str]:
    """Return the names of a server's databases that match a regular expression."""
    sql = "SELECT datname FROM pg_database WHERE datname ~ %s"
    if not IS_POSTGRESQL:
        sql = "SELECT schema_name FROM information_schema.schemata WHERE schema_name REGEXP %s"
    with closing(pair.admin(server)) as admin:
        return [row[0] for row in run(admin, sql, pattern)]


def run(connection: Any, sql: str, *values: object) -> list[Any]:
    """Run a statement on a connection of the pair, and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(translated(sql), values or None)
        return list(cursor.fetchall()) if cursor.description else []


def create_database(pair: Pair, name: str) -> None:
    """Create a database of the application, unless it is there."""
    with closing(pair.connect()) as plain:
        if not IS_POSTGRESQL:
            run(plain, f"CREATE DATABASE IF NOT EXISTS {name}")
        elif not run(plain, "SELECT FROM pg_database WHERE datname = %s", name):
            run(plain, f"CREATE DATABASE {name}")
            for database in ("shop", name):
                with closing(_connect(pair, database)) as inside:
                    for function in FUNCTIONS:
                        run(inside, function)


def links_of(pair: Any, server: str) -> set[int]:
    """Return the application's links to a server."""
    sql = "SELECT id FROM information_schema.processlist WHERE user = %s"
    if IS_POSTGRESQL:
        sql = "SELECT pid FROM pg_stat_activity WHERE usename = %s"
    with closing(pair.admin(server)) as admin:
        return {row[0] for row in run(admin, sql, pair.user)}


def set_read_only(pair: Any, value: str) -> None:
    """Let the master refuse all writes of the application, or let it take them again."""
    with closing(pair.admin("master")) as admin:
        if not IS_POSTGRESQL:
            run(admin, f"SET GLOBAL read_only = {value}")
            return
        run(admin, f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        run(admin, "SELECT pg_reload_conf()")
    while True:
        # A new connection: the server signals the processes of all others first.
        with closing(pair.admin("master")) as admin:
            if run(admin, "SHOW default_transaction_read_only") == [(value.lower(),)]:
                return
        time.sleep(0.005)


def end_links(pair: Pair) -> None:
    """End all links of the application."""
    for server in ("master", "slave"):
        if IS_POSTGRESQL:
            sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
            run(_session(pair, server), sql, pair.user)
        else:
            kill(pair, server, *links_of(pair, server))


def empty_tables(pair: Any) -> None:
    """Delete what tests have written, on all servers."""
    if IS_POSTGRESQL:
        for database in ("shop", "test_other"):
            run(_session(pair, pair.master_name, database), EMPTIED)
    else:
        # Not as the application: the server may count the connection for a moment longer.
        with closing(pair.admin("master")) as plain:
            run(plain, "SET foreign_key_checks = 0")
            sql = f"WHERE table_schema IN ('shop', 'test_other') AND table_name REGEXP {TABLES}"
            for schema, table in run(plain, f"SELECT table_schema, table_name FROM information_schema.tables {sql}"):
                run(plain, f"DELETE FROM {schema}.{table}")
    pair.wait_caught_up()


def _session(pair: Any, server: str, database: str = "shop") -> Any:
    """Return the superuser's session on a server of PostgreSQL. It stays open: opening one costs more than its use."""
    key = (id(pair), server, database)
    session = _sessions.get(key)
    if session is not None and not session.closed and not is_readable(session.fileno()):
        return session
    if session is not None:
        session.close()
    session = pair.admin(server)
    if database != "shop":
        parameters = {**session.info.get_parameters(), "dbname": database}
        session.close()
        session = type(session).connect(**parameters, autocommit=True)
    _sessions[key] = session
    return session


def close_sessions() -> None:
    """Close what stays open between the tests."""
    while _sessions:
        _sessions.popitem()[1].close()


def _connect(pair: Any, database: str) -> Any:
    from psycopg import connect  # noqa: PLC0415 - only on PostgreSQL

    return connect(**{**pair.master, "dbname": database}, autocommit=True)
