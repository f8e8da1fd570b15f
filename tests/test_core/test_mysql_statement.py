"""What the text of statements shows for MariaDB and MySQL (M1, S5)."""

from __future__ import annotations

import pytest

from replswitch.drivers.mysql_statement import CONTROL, leaves_open, may_commit


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        (b"BEGIN", True),
        (b"/* shop */ START TRANSACTION READ ONLY", True),
        (b"COMMIT", False),
        (b"COMMIT AND CHAIN", True),
        (b"ROLLBACK WORK", False),
        (b"ROLLBACK TO first", None),
        (b"SAVEPOINT first", None),
        (b"INSERT INTO message VALUES (1)", None),
        (b"BEGIN; INSERT INTO message VALUES (1); COMMIT", False),
        (b"INSERT INTO message VALUES (1); BEGIN; SELECT 1;", True),
        (b"BEGIN; INSERT INTO message VALUES ('; COMMIT')", True),
        (b'BEGIN; SELECT "it\'s; COMMIT", `a;COMMIT`', True),
        (b"SELECT 1; SELECT 2", None),
        (b"CALL post(';')", None),
        (b"BEGIN NOT ATOMIC INSERT INTO message VALUES (1); COMMIT; END", None),
        (b"CREATE PROCEDURE post() BEGIN DECLARE x INT; BEGIN SELECT 1; END; END", None),
        (b"COMMIT; CREATE PROCEDURE post() BEGIN DECLARE x INT; BEGIN SELECT 1; END; END", False),
    ],
)
def test_s5_the_text_shows_whether_a_transaction_is_open(text: bytes, is_open: bool | None) -> None:
    assert leaves_open(text, CONTROL.match(text)) is is_open


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("INSERT INTO message VALUES (1)", False),
        ("  -- a comment\n(SELECT 1)", False),
        (b"/* shop */ UPDATE message SET id = 1;", False),
        ("SAVEPOINT first", False),
        ("ROLLBACK TO first", False),
        ("ROLLBACK", True),
        ("CALL post()", True),
        (b"BEGIN NOT ATOMIC SELECT 1; END", True),
        ("CREATE TABLE message (id INT)", True),
        ("EXECUTE prepared", True),
        ("INSERT INTO message VALUES (1); COMMIT", True),
    ],
)
def test_m1_the_text_shows_whether_a_statement_may_commit_before_its_error(text: str | bytes, may: bool) -> None:
    assert may_commit(text) is may
