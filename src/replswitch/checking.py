"""Checks of options: values of a wrong type, and unknown names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeGuard

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable


def require(fine: object, name: str, value: object, wanted: str) -> None:
    """Refuse the value of an option.

    Args:
        fine: whether the value is accepted.
        name: the option's name.
        value: its value.
        wanted: the allowed values, as the end of a sentence.

    Raises:
        ConfigurationError: it is not.
    """
    if not fine:
        raise ConfigurationError(f'The option "{name}" is {value!r}. It must be {wanted}.')


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number. True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_name(name: object) -> None:
    """Refuse a value of the option ``name`` that is neither None nor a word for the database."""
    require(name is None or (isinstance(name, str) and name), "name", name, 'a word for the database, such as "shop"')


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not known, and say which one may be meant.

    Raises:
        ConfigurationError: a name in ``given`` is not in ``known``.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"Known are: {', '.join(names)}."
            raise ConfigurationError(f'Unknown {what} "{name}". {hint}')
