"""Refuse a decorator above ``@app.route``, because Flask would call only the undecorated function.

Flask keeps no list of applications, so this module refuses views only in applications with ReplSwitch:

=========================================  =============================================
the application of the view                the view is refused
=========================================  =============================================
already has ReplSwitch                     when the view is decorated
gets ReplSwitch later                      when the application gets ReplSwitch
gets the view through a blueprint          when it has both the blueprint and ReplSwitch
never gets ReplSwitch                      never
=========================================  =============================================
"""

from __future__ import annotations

import sys
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from replswitch import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    View = Callable[..., Any]

_OWN: Final = {"replswitch", "flask_replswitch"}

# The functions decorated with an ``@``, with the name of the decorator; and the views of applications with
# ReplSwitch. An unhashable function is in neither of the two.
_decorated: Final[weakref.WeakKeyDictionary[View, str]] = weakref.WeakKeyDictionary()
_given: Final[weakref.WeakSet[View]] = weakref.WeakSet()


class WatchedViews(dict[str, "View"]):
    """The views of an application by their endpoints. It refuses a view that was decorated after Flask got the view.

    Args:
        views: the views that the application already has.

    Raises:
        ConfigurationError: a view was decorated after Flask got it. Adding a view later raises the same error.
    """

    def __init__(self, views: Mapping[str, View]) -> None:
        super().__init__()
        for endpoint, view in views.items():
            self[endpoint] = view

    def __setitem__(self, endpoint: str, view: View) -> None:
        with suppress(TypeError):
            if view in _decorated:
                raise _wrong_order(view, _decorated[view])
            _given.add(view)
        super().__setitem__(endpoint, view)


def remember(function: View, decorator: str) -> None:
    """If a function is being decorated with an ``@``, remember it and the functions that it wraps.

    After an ``@``, the name refers to the decorated function, so giving Flask the undecorated one is a mistake. After a
    call ``use_slave(view)``, it may be intended, because the result can be a second view beside the first.

    Raises:
        ConfigurationError: the function is a view of an application already.
    """
    layers = list(_layers(function))
    if any(map(_is_below_running_line, layers)):
        for layer in layers:
            with suppress(TypeError):
                if layer in _given:
                    raise _wrong_order(layer, decorator)
                _decorated[layer] = decorator


def _is_below_running_line(function: View) -> bool:
    """Return whether the application's running line is a decorator of the function; False for a later call.

    A function's code begins with the line of its first decorator. While a decorator runs, this decorator's line is the
    running line.
    """
    code = getattr(function, "__code__", None)
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _OWN:
        frame = frame.f_back
    if code is None or code.co_filename != frame.f_code.co_filename:
        return False
    first = code.co_firstlineno
    body = min((line for *_, line in code.co_lines() if line is not None and line > first), default=first + 1)
    return bool(first <= frame.f_lineno < body)


def _layers(view: View) -> Iterator[View]:
    """Yield a function, and the functions that it wraps with ``functools.wraps``."""
    layer: View | None = view
    while layer is not None:
        yield layer
        layer = getattr(layer, "__wrapped__", None)


def _wrong_order(view: View, decorator: str) -> ConfigurationError:
    code = getattr([*_layers(view)][-1], "__code__", None)
    place = "" if code is None else f", at {code.co_filename}:{code.co_firstlineno}"
    return ConfigurationError(
        f"@{decorator} is above the line that registers the view {getattr(view, '__qualname__', view)}"
        f"{place}. Flask has the undecorated function, so @{decorator} would do nothing. Put it below "
        "@….route(…), next to the function."
    )
