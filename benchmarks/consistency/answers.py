"""The responses of the applications of `consistency.command`, the same for all."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The secret key of the applications.
SECRET: Final = "a secret for the benchmark alone"


def answer_to_read(rows: Iterable[tuple[int, int]]) -> bytes:
    """Return the body of the answer to a GET."""
    servers, numbers = zip(*rows, strict=True)
    return json.dumps({"server": servers[0], "numbers": numbers}).encode()


def answer_to_write(visitor: int, status: int) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers and the body of the answer to a POST."""
    if status == HTTPStatus.SEE_OTHER:
        return [("Location", f"/?visitor={visitor}")], b""
    return [("Content-Type", "application/json")], json.dumps({"visitor": visitor}).encode()
