"""Names of test parameters, so that a list of failures shows the case. pytest would only number most: ``value7``."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from re import Pattern
from typing import Final

LONGEST: Final = 60


def name_of(value: object, argument: str) -> str | None:
    """Return the name of a value; None if pytest names it well, as a string, a class or a function.

    Args:
        value: the value of the parameter.
        argument: the name of the parameter.
    """
    if (value and isinstance(value, str | bytes)) or isinstance(value, Enum | Pattern) or hasattr(value, "__name__"):
        return None
    text = _text(value)
    if " at 0x" in text:  # differs in each process of pytest-xdist
        return None
    half = LONGEST // 2
    return f"{argument}={text if len(text) <= LONGEST else f'{text[:half]}…{text[-half:]}'}"


def _text(value: object) -> str:
    match value:
        case Mapping():
            return f"{{{', '.join(f'{key}: {_text(each)}' for key, each in value.items())}}}"
        case AbstractSet():
            return f"{{{', '.join(sorted(map(_text, value)))}}}"  # the order of a set differs in each process
        case list() | tuple() if not hasattr(value, "_fields"):
            return f"[{', '.join(map(_text, value))}]"
    return str(getattr(value, "__name__", None) or repr(value))
