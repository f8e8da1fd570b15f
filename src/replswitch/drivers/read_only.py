"""Keep the connections of slaves read-only, on MariaDB and MySQL (S7)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from replswitch.drivers.driver import MUST_STAY_READ_ONLY
from replswitch.drivers.mysql import READ_ONLY_TRANSACTION, is_mariadb, rows

if TYPE_CHECKING:
    from replswitch.drivers.driver import Raw

#: Makes a session read-only.
STAY_READ_ONLY: Final = b"SET SESSION TRANSACTION READ ONLY"

# Statements that end the read-only mode of a session or of a transaction, with any comments. All repetitions are
# bounded or possessive, because the text may contain what a visitor has typed.
_LETS_WRITE: Final = re.compile(
    r"\bREAD\b(?:/\*(?!M?!).{0,200}?\*/|(?:--|\#)[^\n]{0,200}\n|/\*M?!|[\W\d])*+WRITE\b"
    r"|(?:tx|transaction)_read_only\b(?!\W*(?:1|ON|TRUE)\s*(?:[,;]|$)).{0,100}?=",
    re.IGNORECASE | re.DOTALL,
)

#: Statements that may run what their text does not show, such as a procedure.
RUNS_OTHERS: Final = re.compile(r";|\b(?:CALL|EXECUTE|ATOMIC)\b", re.IGNORECASE)

# The beginning of statements that only read, after any comments; and the parts of them that change the session.
_READ: Final = re.compile(
    r"(?:\s|\(|/\*(?:[^*]|\*(?!/))*\*/|(?:--(?=\s)|#)[^\n]*(?:\n|\Z))*+(?:SELECT|WITH|DO|VALUES)\b", re.IGNORECASE
)
_TRACE: Final = re.compile(r":=|get_lock|LAST_INSERT_ID\((?!\s*\))", re.IGNORECASE)


def keep_read_only(raw: Raw, sql: str | bytes) -> None:
    """Refuse a statement that would end the read-only mode of a slave's connection (S7).

    Raises:
        Exception: the driver's own error, the same one as for writes on that connection.
    """
    text = sql.decode(errors="replace") if isinstance(sql, bytes | bytearray) else sql
    # Each such statement has this word. To run the expression for each statement would take 30 times longer.
    if "READ" in text.upper() and _LETS_WRITE.search(text):
        raise raw.OperationalError(READ_ONLY_TRANSACTION, MUST_STAY_READ_ONLY)


def became_writable(raw: Raw, *, wrote: bool) -> Exception:
    """Close a slave's connection that a statement has made writable, and return the error to raise (S7).

    Args:
        raw: the connection.
        wrote: the statement may have written. Then the error is not that of a refused write, because
            replswitch would run the statement of a refused write once more, on the master.
    """
    raw.close()
    error: Exception
    if wrote:
        error = raw.InternalError(
            "A statement in slave state has written, although its connection is read-only. If it ran on a slave, the "
            "data of this slave now differs from the master's. Run the statement in master state."
        )
    else:
        error = raw.OperationalError(
            READ_ONLY_TRANSACTION, "A statement in slave state has ended the read-only mode of its connection."
        )
    return error


def check_read_only(raw: Raw, sql: bytes) -> None:
    """Raise an error if a procedure that has changed rows, or read a row into a variable, has written to the database.

    To find this out, query the session. This takes one round trip.

    Raises:
        Exception: the driver's InternalError, if the procedure has written or has ended the read-only mode.
    """
    if b";" in sql.rstrip(b"; \n"):
        return  # results may be unread
    variables = "@@tx_read_only, @@last_gtid" if is_mariadb(raw) else "@@transaction_read_only, ''"
    ((read_only, gtid),) = rows(raw, f"SELECT {variables}")
    if not read_only or gtid:
        raise became_writable(raw, wrote=True)


def leaves_trace(sql: str) -> bool:
    """Return whether a read may leave a variable, a lock or an insert id in the session (S8, S11).

    The server does not report these changes. Only the text of reads is searched, because the server reports what other
    statements change, and their text may contain what a visitor has typed.
    """
    upper = sql.upper()  # running the expressions for each statement would take longer
    may_leave = ":=" in sql or "GET_LOCK" in upper or "LAST_INSERT_ID(" in upper
    return may_leave and _READ.match(sql) is not None and _TRACE.search(sql) is not None
