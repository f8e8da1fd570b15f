"""Each option of requests has one name everywhere, and the manual lists all of them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from django_replswitch import conf as of_django
from flask_replswitch import conf as of_flask
from replswitch.request.options import RequestOptionNames, RequestOptions

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {field.name for field in fields(RequestOptions)}


def listed(page: str, heading: str) -> set[str]:
    """Return the names in the first column of the first table below a heading."""
    section = (DOCS / page).read_text().partition(f"\n## {heading}")[2]
    rows = re.search(r"^\|[- |]+\|\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert rows is not None
    found: set[str] = set()
    for row in rows[1].splitlines():
        first, *others = re.findall(r"`([^`]+)`", row.split("|")[1])
        start = first[: first.rindex("_") + 1] if others else ""  # `REPLSWITCH_COOKIE_DOMAIN`, `…_PATH`
        found |= {first, *(start + other.removeprefix("…_") for other in others)}
    return found


@pytest.mark.parametrize(
    ("page", "heading", "prefix", "others"),
    [
        ("reference.md", "`replswitch.wsgi.ReplicationMiddleware", "", set()),
        ("flask.md", "Options", of_flask.PREFIX, {"slaves"}),
        ("django.md", "Options", "", {name.lower() for name in of_django.NAMES - {each.upper() for each in NAMES}}),
    ],
)
def test_the_manual_lists_every_option(page: str, heading: str, prefix: str, others: set[str]) -> None:
    assert {name.removeprefix(prefix).lower() for name in listed(page, heading)} == NAMES | others


def test_each_option_has_one_name_everywhere() -> None:
    assert set(RequestOptionNames.__annotations__) == NAMES
    assert {name.upper() for name in NAMES} <= of_django.NAMES
