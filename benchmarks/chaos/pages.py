"""The pages of the application under chaos, the same on every side: their queries, and their error responses."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Any, Protocol

from shared.answer import Answer, Switchable

from replswitch import NoServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE = (
    "CREATE TABLE note (id {key}, client INT NOT NULL, number INT NOT NULL,"
    " token CHAR(32) NOT NULL, part INT NOT NULL, padding VARCHAR(500) NOT NULL)"
)
INDEX = "CREATE INDEX of_client ON note (client, number)"
"""No key makes a token unique, so that a write that ran twice is there twice."""

KEPT = 20
"""How many of a client's latest notes a page shows."""

PADDING = "x" * 500
"""So that a page's result is long enough to be cut in the middle."""

IN_TRANSACTION = "transaction"
NO_SERVER = "no-server"
DATABASE = "database"
"""The kinds of error in a response: in a transaction on a slave, NoServerError, any other of the driver."""


class Base(Switchable, Protocol):
    """The database, as all sides have it."""

    error: type[BaseException]

    def cursor(self) -> Any:
        """Return a cursor."""

    def transaction(self) -> AbstractContextManager[Any]:
        """Begin a transaction; commit it, or roll it back."""


def answer(base: Base, method: str, path: str, values: Mapping[str, str]) -> Answer:
    """Serve a request.

    Args:
        base: the database.
        method: ``GET`` or ``POST``.
        path: the page's.
        values: of the query string or of the body: ``client``, and for a POST ``number`` and ``token``.
    """
    try:
        return PAGES[method, path](base, {name: str(value) for name, value in values.items()})
    except NoServerError as error:
        return Answer(503, {"error": NO_SERVER, "text": str(error)})
    except base.error as error:
        return Answer(500, {"error": DATABASE, "text": f"{type(error).__name__}: {error}"})


def _rows(base: Base, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(base.cursor()) as cursor:
        cursor.execute(sql, values)
        return [tuple(row) for row in cursor.fetchall()]


def _numbers(base: Base, client: str) -> list[int]:
    sql = "SELECT number, token, padding FROM note WHERE client = %s AND part = 0 ORDER BY number DESC LIMIT %s"
    return [row[0] for row in _rows(base, sql, client, KEPT)]


def _one(base: Base, values: Mapping[str, str]) -> Answer:
    return Answer(200, {"numbers": _numbers(base, values["client"])})


def _three(base: Base, values: Mapping[str, str]) -> Answer:
    seen = [_rows(base, "SELECT MAX(number) FROM note WHERE client = %s", values["client"])[0][0]]
    numbers = _numbers(base, values["client"])
    seen += [_rows(base, "SELECT MAX(number) FROM note WHERE client = %s", values["client"])[0][0]]
    # One scope, one slave, and a slave that was changed for another one has all that must be seen, too.
    return Answer(200, {"numbers": numbers, "latest": [number or 0 for number in seen]})


def _blocks(base: Base, values: Mapping[str, str]) -> Answer:
    with base.use_slave():
        numbers = _numbers(base, values["client"])
    told: dict[str, Any] = {"numbers": numbers}
    try:  # last: whatever became of it, the master would serve the rest
        with base.use_master():
            told["latest"] = [
                _rows(base, "SELECT MAX(number) FROM note WHERE client = %s", values["client"])[0][0] or 0
            ]
    except (NoServerError, base.error) as error:
        told["without_master"] = str(error)
    return Answer(200, told)


def _transaction(base: Base, values: Mapping[str, str]) -> Answer:
    try:
        with base.transaction():
            first = _numbers(base, values["client"])
            return Answer(200, {"numbers": first, "again": _numbers(base, values["client"])})
    except NoServerError:
        raise
    except base.error as error:
        return Answer(500, {"error": IN_TRANSACTION, "text": str(error)})


def _insert(base: Base, values: Mapping[str, str], part: int = 0) -> None:
    with closing(base.cursor()) as cursor:
        cursor.execute(
            "INSERT INTO note (client, number, token, part, padding) VALUES (%s, %s, %s, %s, %s)",
            (values["client"], values["number"], values["token"], part, PADDING),
        )


def _form(base: Base, values: Mapping[str, str]) -> Answer:
    _insert(base, values)
    return Answer(303, location=f"/one?client={values['client']}")


def _json(base: Base, values: Mapping[str, str]) -> Answer:
    _insert(base, values)
    try:
        return Answer(201, {"numbers": _numbers(base, values["client"])})
    except NoServerError as error:  # which is said of the read: the write is done
        return Answer(500, {"error": DATABASE, "text": str(error)})


def _both(base: Base, values: Mapping[str, str]) -> Answer:
    with base.transaction():
        _insert(base, values, 0)
        _insert(base, values, 1)
    return Answer(201)


PAGES = {
    ("GET", "/one"): _one,
    ("GET", "/three"): _three,
    ("GET", "/blocks"): _blocks,
    ("GET", "/transaction"): _transaction,
    ("POST", "/form"): _form,
    ("POST", "/json"): _json,
    ("POST", "/both"): _both,
}
"""``/both`` writes two rows in a transaction, the others one on its own."""
