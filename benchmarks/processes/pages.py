"""The pages of the application, the same on every side."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlencode

from shared.answer import Answer, Switchable

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

SECRET: Final = "a secret for the run alone"

TABLE: Final = (
    "CREATE TABLE note (id BIGINT AUTO_INCREMENT PRIMARY KEY, token CHAR(32) NOT NULL, number INT NOT NULL,"
    " KEY (token, number))"
)

ECHO: Final = "SELECT %(echo)s, @@server_id, CONNECTION_ID(), SLEEP(%(pause)s)"
"""The value that the request sent, and the server and the connection of the query. It takes a while, so that other
queries run at the same time."""

ADD: Final = "INSERT INTO note (token, number) VALUES (%(token)s, %(number)s)"

KEPT: Final = 20
"""How many of its latest notes a visitor is shown."""

OWN: Final = f"SELECT token, number FROM note WHERE token = %(token)s ORDER BY number DESC LIMIT {KEPT}"

REASONS: Final = {200: "OK", 303: "See Other", 404: "Not Found", 500: "Internal Server Error"}

Values = Mapping[str, str | int | float]
"""The parameters of a statement, by their names."""


class Base(Switchable, Protocol):
    """The database, as all sides have it."""

    def rows(self, sql: str, values: Values) -> list[tuple[Any, ...]]:
        """Read."""

    def write(self, sql: str, values: Values) -> None:
        """Write, and commit."""


class Pages:
    """All pages.

    Args:
        base: the database.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._imported: dict[str, Any] = {"process": os.getpid(), "links": []}

    def open_links(self) -> None:
        """Query both servers, before the application serves anybody."""
        uses: tuple[Callable[[], AbstractContextManager[Any]], ...]
        uses = (self._base.use_slave, self._base.use_master, nullcontext)  # a link outside a block may be held
        for use in uses:
            with use():
                self._imported["links"].append(self._echo({"echo": "import", "pause": "0"})["link"])

    def answer(self, method: str, path: str, values: Mapping[str, str]) -> Answer:
        """Serve a request.

        Args:
            method: ``GET`` or ``POST``.
            path: the page's.
            values: ``token``, the visitor's; ``number``, of a note to add; ``echo``, to be found in the answer;
                ``pause``, seconds that a query takes, and so many again behind it.
        """
        page = {("GET", "/up"): self._up, ("GET", "/echo"): self._echo, ("GET", "/own"): self._own}.get((method, path))
        try:
            if (method, path) == ("POST", "/add"):
                return self._add(values)
            return Answer(404) if page is None else Answer(200, page(values))
        except Exception as error:  # noqa: BLE001 - the visitor counts and reports it
            return Answer(500, {"error": f"{type(error).__name__}: {error}"})

    def _up(self, _: Mapping[str, str]) -> dict[str, Any]:
        """Return the state at import, without a query."""
        return {"process": os.getpid(), "imported": self._imported}

    def _echo(self, values: Mapping[str, str]) -> dict[str, Any]:
        pause = float(values["pause"])
        ((echo, server, link, _),) = self._base.rows(ECHO, {"echo": values["echo"], "pause": pause})
        time.sleep(pause)  # mysqlclient lets no other greenlet run while it waits
        return {"echo": echo, "link": [server, link], "process": os.getpid()}

    def _own(self, values: Mapping[str, str]) -> dict[str, Any]:
        told = self._echo(values)
        told["notes"] = [list(row) for row in self._base.rows(OWN, {"token": values["token"]})]
        return told

    def _add(self, values: Mapping[str, str]) -> Answer:
        self._base.write(ADD, {"token": values["token"], "number": int(values["number"])})
        told = self._echo(values)
        return Answer(303, told, f"/own?{urlencode({name: values[name] for name in ('token', 'echo', 'pause')})}")
