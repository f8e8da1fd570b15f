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
NAMED: Final = {
    "extra", "lsn", "missing", "nonsense", "ours", "payload", "side", "sslmode",
    "state", "stock", "token", "verdict", "written", "wrong",
}  # fmt: skip
"""Parameters whose strings say nothing without the name of the parameter."""
WORDS: Final = {"false", "none", "null", "true", "yes"}
"""Strings that look like another value, in some language."""


def name_of(value: object, argument: str) -> str | None:
    """Return the name of a value; None if pytest names it well, as a string, a class or a function.

    Args:
        value: the value of the parameter.
        argument: the name of the parameter.
    """
    if isinstance(value, Enum | Pattern) or hasattr(value, "__name__"):
        return None
    if isinstance(value, str | bytes) and len(value) <= LONGEST_OF_PYTEST and _is_clear(value, argument):
        return None
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", _text(value))  # an address differs in each process of pytest-xdist
    half = LONGEST // 2
    return f"{argument}={text if len(text) <= LONGEST else f'{text[:half]}…{text[-half:]}'}"


def _is_clear(value: str | bytes, argument: str) -> bool:
    """Tell if a string is clear without its name and quotes. Without them, the string "2" looks like the number 2."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if argument in NAMED:
        return False
    if not text.isascii():  # pytest escapes it
        return True
    if len(text) < 3 or text.lower() in WORDS or not re.search("[A-Za-z]", text):
        return False
    try:
        literal_eval(text)
    except (ValueError, SyntaxError):
        return True
    return False


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
    return "object()" if type(value) is object else str(getattr(value, "__name__", None) or repr(value))
