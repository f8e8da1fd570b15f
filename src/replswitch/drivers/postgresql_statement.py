"""Examine the text of a statement for PostgreSQL.

The first word of a statement shows which queries of replswitch should be sent with it (P1), and whether it can write or
end a transaction. The text never decides where a statement runs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

#: The first word, after comments and parentheses.
_FIRST: Final = re.compile(r"(?:[\s(;]|--[^\n]*(?:\n|$)|/\*.*?\*/)*+([a-z]*)", re.IGNORECASE | re.DOTALL)

#: Command tags of statements that change the session.
CHANGES: Final = frozenset({"SET", "RESET", "PREPARE", "DEALLOCATE", "LISTEN", "UNLISTEN", "LOAD", "DECLARE"})

_LETS_WRITE: Final = re.compile(
    r"\bREAD\s+WRITE\b|\b(?:default_)?transaction_read_only'?\s*(?:=|\bTO\b|,)\s*'?(?:0|of|f|n)", re.IGNORECASE
)

#: Statements that write nothing themselves. They can end the open transaction, but not commit a prepared one.
_PLAIN: Final = frozenset(
    {
        *("abort", "begin", "close", "deallocate", "discard", "end", "fetch", "listen", "load", "lock", "move"),
        *("notify", "prepare", "release", "reset", "rollback", "savepoint", "set", "start", "unlisten"),
    }
)

#: Statements that write only through the functions that they call.
_READS: Final = frozenset({"select", "show", "values", "table", "explain"})

#: Statements that run in one transaction, and neither begin nor end one.
_CHANGES_ROWS: Final = frozenset({"insert", "update", "delete", "merge", "with"})

#: Statements that may commit several times, so that they may have written even if they fail.
_COMMITS: Final = frozenset({"", "call", "do"})

#: A COMMIT among several statements.
_HAS_COMMIT: Final = re.compile(
    r"(?:;|\A)(?:[\s;]|--[^\n]*(?:\n|$)|/\*.*?\*/)*+(?:commit|end)\b", re.IGNORECASE | re.DOTALL
)

#: The first words of statements that contain other statements, and the part that contains them.
_DEFINES: Final = frozenset({"create", "alter", "do"})
_BODY: Final = re.compile(r"\$(\w*)\$.*?\$\1\$|\bBEGIN\s+ATOMIC\b.*?;\s*END\b", re.IGNORECASE | re.DOTALL)

#: Words of a query that writes in its WITH clause.
_WRITES: Final = re.compile(r"\b(?:insert|update|delete|merge)\b", re.IGNORECASE)

#: Words of an INSERT that may insert no rows, because it selects them, or ignores those that exist already.
_MAY_INSERT_NOTHING: Final = re.compile(r"\b(?:CONFLICT|SELECT|TABLE|WITH)\b", re.IGNORECASE)

#: The function that returns the whole text of the message.
_SEES_TEXT: Final = re.compile(r"\bcurrent_query\b", re.IGNORECASE)

#: Functions that change the session, although the command tag does not show it.
_LEAVES_TRACE: Final = re.compile(r"\bset_config\b|_advisory_", re.IGNORECASE)

#: Creates a temporary table. On a master's connection, that changes the session.
_TEMPORARY: Final = re.compile(r"\b(?:CREATE|REPLACE|LOCAL|GLOBAL|INTO)\s+TEMP(?:ORARY)?\b", re.IGNORECASE)

_COPIES_IN: Final = re.compile(r"\bFROM\s+STDIN\b", re.IGNORECASE)

#: Longer texts are not cached, because they are seldom sent twice.
LONGEST: Final = 4096


class Statement:
    """The facts that the text of a statement shows.

    Attributes:
        lets_write: it would end the read-only mode of a slave's connection (S7).
        leaves_trace: it changes the session, although the command tag does not show it.
        is_temporary: it may create a temporary table.
        is_plain: if it is a single statement, it writes nothing, and may begin or end a transaction.
        goes_alone: it cannot be sent together with a query of replswitch, because it is plain, a COPY, or several
            statements.
        only_reads: if it is a single statement, it neither changes its session nor ends a transaction, and writes only
            through the functions that it calls.
        has_side_effect: one of `lets_write`, `leaves_trace` and `is_temporary` is true.
        may_write: it probably writes, so the query for the position is sent with it.
        changes_rows: it runs in one transaction, and neither begins nor ends one.
        inserts: it is an INSERT of given values, which writes if it succeeds.
        joins: it can be sent together with a query of replswitch in one text, because it is a single statement that
            writes nothing itself, nothing hides its end, and it does not return the text.
        commits: it may commit several times.
        has_commit: it may consist of several statements, one of them a COMMIT.
        copies_in: it is a COPY that takes rows from the client.
        encoded: the text as bytes if it is ASCII, because these bytes are the same in each encoding; else None. Also
            None if it is longer than `LONGEST`.
    """

    __slots__ = (
        *("changes_rows", "commits", "copies_in", "encoded", "goes_alone", "has_commit", "has_side_effect", "inserts"),
        *("is_plain", "is_temporary", "joins", "leaves_trace", "lets_write", "may_write", "only_reads"),
    )

    def __init__(self, text: str) -> None:
        found = _FIRST.match(text)
        word = found[1].lower() if found else ""
        self.lets_write = _LETS_WRITE.search(text) is not None
        self.leaves_trace = word in {"select", "with"} and _LEAVES_TRACE.search(text) is not None
        self.is_temporary = word in {"create", "select", "with"} and _TEMPORARY.search(text) is not None
        self.has_side_effect = self.lets_write or self.leaves_trace or self.is_temporary
        self.is_plain = word in _PLAIN
        self.only_reads = word in _READS
        self.goes_alone = self.is_plain or word == "copy"
        self.may_write = not self.only_reads and (word != "with" or _WRITES.search(text) is not None)
        self.changes_rows = word in _CHANGES_ROWS
        outer = _BODY.sub("", text) if word in _DEFINES else text
        self.has_commit = ";" in outer and _HAS_COMMIT.search(outer) is not None
        self.inserts = word == "insert" and _MAY_INSERT_NOTHING.search(text) is None
        self.joins = self.only_reads and _can_be_joined(text, text[: found.start(1)] if found else "")
        self.commits = word in _COMMITS
        self.copies_in = word == "copy" and _COPIES_IN.search(text) is not None
        self.encoded = text.encode() if text.isascii() and len(text) <= LONGEST else None


def _can_be_joined(text: str, before: str) -> bool:
    """Return whether a query of replswitch can follow a read in the same text.

    It cannot follow several statements, because they may begin a transaction. It cannot follow a NUL, at which libpq
    ends the text. And it cannot follow a comment that does not end, which nested comments make possible.

    Args:
        text: the text of the read.
        before: the part of the text before its first word.
    """
    is_single = ";" not in text.strip("; \t\r\n")
    is_plain = "\0" not in text and before.count("/*") == before.count("*/")
    return is_single and is_plain and _SEES_TEXT.search(text) is None


def statement(text: str) -> Statement:
    """Return the facts that the text of a statement shows, from a cache unless the text is long."""
    return Statement(text) if len(text) > LONGEST else kept(text)


kept = lru_cache(maxsize=500)(Statement)
