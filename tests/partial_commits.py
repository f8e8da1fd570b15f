"""Statements that commit something and then fail, in the SQL of each kind of server."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

from replswitch.testing import PostgreSQLPair

INSERT: Final = "INSERT INTO partial VALUES (1)"
FAILS: Final = "INSERT INTO partial VALUES (5)"  # this row is there already

STATEMENTS: Final[dict[str, tuple[str, ...]]] = {
    "procedure with COMMIT": ("CALL commit_and_fail()",),
    "DO block with COMMIT": (f"DO $$ BEGIN {INSERT}; COMMIT; {FAILS}; END $$",),
    "compound statement with COMMIT": (f"BEGIN NOT ATOMIC {INSERT}; COMMIT; {FAILS}; END",),
    "CREATE TABLE after a write": (INSERT, "CREATE TABLE partial (id INT)"),  # it commits before it fails
    "text with COMMIT": (f"{INSERT}; COMMIT; {FAILS}",),
    "text with BEGIN and COMMIT": (f"BEGIN; {INSERT}; COMMIT; {FAILS}",),
    "text with COMMIT AND CHAIN": (f"BEGIN; {INSERT}; COMMIT AND CHAIN; {FAILS}",),
}
"""The texts by name. The last one fails."""

OF_POSTGRESQL: Final = (
    "procedure with COMMIT",
    "DO block with COMMIT",
    "text with COMMIT",
    "text with BEGIN and COMMIT",
    "text with COMMIT AND CHAIN",
)
OF_MYSQL: Final = (
    "procedure with COMMIT",
    "CREATE TABLE after a write",
    "text with COMMIT",
    "text with BEGIN and COMMIT",
    "text with COMMIT AND CHAIN",
)
OF_MARIADB: Final = (*OF_MYSQL, "compound statement with COMMIT")

FORBIDDEN_IN_TRANSACTIONS: Final = ("procedure with COMMIT", "DO block with COMMIT")
"""PostgreSQL refuses the COMMIT in these if a transaction is open."""


def prepare(pair: Any) -> None:
    """Create the table ``partial``, with one row, and the procedure ``commit_and_fail``."""
    body = f"BEGIN {INSERT}; COMMIT; {FAILS}; END"
    if isinstance(pair, PostgreSQLPair):
        body = f"LANGUAGE plpgsql AS $$ {body} $$"
    with closing(pair.connect()) as plain, plain.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS partial")
        cursor.execute("CREATE TABLE partial (id INT PRIMARY KEY)")
        cursor.execute(FAILS)
        cursor.execute("DROP PROCEDURE IF EXISTS commit_and_fail")
        cursor.execute(f"CREATE PROCEDURE commit_and_fail() {body}")
    pair.wait_caught_up()


def names(pair: str) -> tuple[str, ...]:
    """Return the names of the statements for a pair, by the name of its fixture."""
    return {"postgresql_pair": OF_POSTGRESQL, "mysql_pair": OF_MYSQL}.get(pair, OF_MARIADB)


def has_committed(pair: Any) -> bool:
    """Return whether the row of `INSERT` is on the master."""
    with closing(pair.connect()) as plain, closing(plain.cursor()) as cursor:
        cursor.execute("SELECT COUNT(*) FROM partial WHERE id = 1")
        return bool(cursor.fetchone() == (1,))


def commits(pair: Any, name: str, *, in_transaction: bool) -> bool:
    """Return whether the statements commit the row of `INSERT`."""
    if isinstance(pair, PostgreSQLPair):
        return not (in_transaction and name in FORBIDDEN_IN_TRANSACTIONS)
    return True


def settings_for_several(pair: Any) -> dict[str, Any]:
    """Return the driver's settings that allow several statements in one text, with their results."""
    return {} if isinstance(pair, PostgreSQLPair) else {"client_flag": 1 << 16 | 1 << 17}
