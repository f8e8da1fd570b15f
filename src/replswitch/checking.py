"""Checks of options: values of a wrong type, and unknown names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeGuard

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable


def require(fine: object, name: str, value: object, wanted: str) -> None:
    """Raise an error unless the value of an option is accepted.

    Args:
        fine: whether the value is accepted.
        name: the option's name.
        value: its value.
        wanted: the allowed values, as the end of a sentence.

    Raises:
        ConfigurationError: the value is not accepted.
    """
    if not fine:
        raise ConfigurationError(f'The option "{name}" is {value!r}. It must be {wanted}.')


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number. True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_name(name: object) -> None:
    """Raise an error unless the option ``name`` is None or a string that is not empty."""
    require(name is None or (isinstance(name, str) and name), "name", name, 'a string such as "shop"')


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise an error if a name is not known, and suggest a similar one.

    Raises:
        ConfigurationError: a name in ``given`` is not in ``known``.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"Known are: {', '.join(names)}."
            raise ConfigurationError(f'Unknown {what} "{name}". {hint}')
