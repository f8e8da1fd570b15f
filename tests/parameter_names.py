"""Names of test parameters, so that a list of failures shows the case. pytest would only number most: ``value7``."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from re import Pattern
from typing import Final

LONGEST: Final = 60
LONGEST_OF_PYTEST: Final = 100
"""pytest numbers a string with more characters."""


def name_of(value: object, argument: str) -> str | None:
    """Return the name of a value; None if pytest names it well, as a string, a class or a function.

    Args:
        value: the value of the parameter.
        argument: the name of the parameter.
    """
    if isinstance(value, Enum | Pattern) or hasattr(value, "__name__"):
        return None
    if isinstance(value, str | bytes) and len(value) <= LONGEST_OF_PYTEST and not _looks_like_another_value(value):
        return None
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", _text(value))  # an address differs in each process of pytest-xdist
    half = LONGEST // 2
    return f"{argument}={text if len(text) <= LONGEST else f'{text[:half]}…{text[-half:]}'}"


def _looks_like_another_value(value: str | bytes) -> bool:
    """Tell if a string must be shown with its quotes: without them, the string "2" looks like the number 2."""
    try:
        literal_eval(value.decode() if isinstance(value, bytes) else value)
    except (ValueError, SyntaxError):
        return not value.strip()
    return True


def _text(value: object) -> str:
    match value:
        case Mapping():
            return f"{{{', '.join(f'{key}: {_text(each)}' for key, each in value.items())}}}"
        case AbstractSet():
            return f"{{{', '.join(sorted(map(_text, value)))}}}"  # the order of a set differs in each process
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case tuple() if not hasattr(value, "_fields"):
            return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})"
    return str(getattr(value, "__name__", None) or repr(value))
