"""Templates that escape whatever is put into them: `string.Template` and `html.escape`."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from string import Template


class Html(str):
    """Text that is HTML already, and so is not escaped again."""

    __slots__ = ()


def fill(template: str, **values: object) -> Html:
    """Replace each ``$name`` in ``template`` by the value of that name, escaped unless it is `Html`."""
    escaped = {name: value if isinstance(value, Html) else escape(str(value)) for name, value in values.items()}
    return Html(Template(template).substitute(escaped))


def join(parts: list[Html]) -> Html:
    """Join pieces of HTML."""
    return Html("\n".join(parts))


@cache
def load(name: str) -> Html:
    """Return a file of the folder ``templates``."""
    return Html((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))
