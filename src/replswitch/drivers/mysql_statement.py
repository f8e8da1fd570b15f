"""Examine the text of a statement for MariaDB and MySQL.

The text shows what the answer of the server, or what the driver keeps of it, does not show. It never decides where a
statement runs.
"""

from __future__ import annotations

import re
from typing import Final

# White space and comments.
_BLANK: Final = rb"(?:\s|/\*(?:[^*]|\*(?!/))*\*/|(?:--(?=\s)|#)[^\n]*(?:\n|\Z))*+"

#: Statements that begin or end a transaction, or may do so. A match without a group leaves it as it is.
CONTROL: Final = re.compile(
    _BLANK + rb"(?:(?P<call>CALL|EXECUTE|BEGIN\s+NOT)"
    rb"|(?P<begin>BEGIN|START\s+TRANSACTION|(?:COMMIT|ROLLBACK)(?:\s+WORK)?\s+AND\s+CHAIN)"
    rb"|(?P<end>COMMIT|ROLLBACK(?!\s+(?:WORK\s+)?TO))"
    rb"|SAVEPOINT|RELEASE|ROLLBACK|SET\s+(?:SESSION\s+)?TRANSACTION)\b",
    re.IGNORECASE,
)

# What may contain a semicolon that does not end a statement.
_QUOTED: Final = re.compile(rb"'(?:[^'\\]|''|\\.)*+'|\"(?:[^\"\\]|\"\"|\\.)*+\"|`[^`]*+`", re.DOTALL)

# The beginning of statements whose text contains other statements.
_DEFINES: Final = re.compile(_BLANK + rb"(?:CREATE|ALTER)\b", re.IGNORECASE)

# Statements that neither begin nor end a transaction. All others may have committed even if they fail: a definition
# commits before it runs, and a procedure may commit before its error.
_STAYS: Final = re.compile(
    _BLANK + rb"(?:\(\s*)*+(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|SHOW|DESC|DESCRIBE|EXPLAIN"
    rb"|SAVEPOINT|RELEASE|ROLLBACK\s+(?:WORK\s+)?TO)\b",
    re.IGNORECASE,
)


def leaves_open(text: bytes, found: re.Match[bytes] | None) -> bool | None:
    """Return whether a transaction is open after one or several statements.

    Args:
        text: the text of the statements.
        found: the match of `CONTROL` at its beginning.

    Returns:
        whether it is open; None if the text does not show it, or does not change it.
    """
    if b";" not in text or (found is not None and found["call"]):
        return _is_begin(found)
    is_open = None
    for part in _QUOTED.sub(b"''", text).split(b";"):
        if _DEFINES.match(part):  # its body contains statements that do not run now
            break
        begins = _is_begin(CONTROL.match(part))
        is_open = is_open if begins is None else begins
    return is_open


def _is_begin(found: re.Match[bytes] | None) -> bool | None:
    if found is None or not (found["begin"] or found["end"]):
        return None
    return found["begin"] is not None


def may_commit(text: str | bytes) -> bool:
    """Return whether a statement may commit the open transaction, and may have done so even if it has failed."""
    code = text.encode(errors="replace") if isinstance(text, str) else bytes(text)
    return _STAYS.match(code) is None or b";" in code.rstrip(b"; \n")
