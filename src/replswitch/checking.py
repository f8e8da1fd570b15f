"""Checks of options: values of a wrong type, and unknown names."""

from __future__ import annotations

import difflib
import re
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
        wanted: the allowed values, as the end of the sentence "It must be …".

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
            hint = f'Did you mean "{near[0]}"?' if near else f"The known names are: {', '.join(names)}."
            raise ConfigurationError(f'Unknown {what} "{name}". {hint}')


def require_package(package: str, oldest: str, extra: str) -> None:
    """Raise an error unless a package is installed, in a version that replswitch supports.

    Args:
        package: the name of the package on PyPI. In small letters, it is also the name of the package's module.
        oldest: the oldest supported version, such as ``"2.0.30"``.
        extra: the extra of replswitch that requires the package.

    Raises:
        ConfigurationError: the package is not installed, or too old.
    """
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - it imports much, e.g. email
    from importlib.util import find_spec  # noqa: PLC0415 - likewise

    try:
        found = version(package)
    except PackageNotFoundError:
        if find_spec(package.lower()) is not None:
            return  # the application is packed into one file, without the packages' metadata
        found = ""
    if _numbers(found) < _numbers(oldest):
        state = f"and {found} is installed" if found else "which is not installed"
        raise ConfigurationError(
            f"replswitch needs {package} {oldest} or newer, {state}. Run: pip install 'replswitch[{extra}]'"
        )


def _numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]
