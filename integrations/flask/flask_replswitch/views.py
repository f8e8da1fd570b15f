"""Notices a decorator above ``@app.route``: Flask has the undecorated function then, and would never call ours.

Flask keeps no list of applications, so this works for those that have ReplSwitch:

=========================================  ============================================
the view was given to an application       it is refused
=========================================  ============================================
that had ReplSwitch before                 when it is decorated
that gets it later                         when it does
through a blueprint                        when the blueprint is registered, or as above
that never gets it                         never
=========================================  ============================================
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

# The functions decorated with an ``@``, with the name of the decorator; and the views of applications that have
# ReplSwitch. An unhashable function is not noticed.
_decorated: Final[weakref.WeakKeyDictionary[View, str]] = weakref.WeakKeyDictionary()
_given: Final[weakref.WeakSet[View]] = weakref.WeakSet()


class WatchedViews(dict[str, "View"]):
    """The views of an application by their endpoints. Refuses one that was decorated after Flask got it.

    Args:
        views: those that it has so far.

    Raises:
        ConfigurationError: one of them was decorated so. Later, the same for each new view.
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
    """Remember that a function is being decorated, and the functions that it wraps.

    Only if it is decorated with an ``@``: the name then means the decorated function, and the undecorated one cannot
    be meant. ``use_slave(view)`` can be a second view beside the first.

    Raises:
        ConfigurationError: it is a view of an application already.
    """
    layers = list(_layers(function))
    if any(map(_is_below_running_line, layers)):
        for layer in layers:
            with suppress(TypeError):
                if layer in _given:
                    raise _wrong_order(layer, decorator)
                _decorated[layer] = decorator


def _is_below_running_line(function: View) -> bool:
    """Return whether the running line of the application is a decorator of the function, and not a later call.

    A function's code begins with its first decorator, and while one runs, its line is the one that runs.
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
    """Yield a function, and the functions that it wraps, by functools.wraps."""
    layer: View | None = view
    while layer is not None:
        yield layer
        layer = getattr(layer, "__wrapped__", None)


def _wrong_order(view: View, decorator: str) -> ConfigurationError:
    code = getattr([*_layers(view)][-1], "__code__", None)
    place = "" if code is None else f", at {code.co_filename}:{code.co_firstlineno}"
    return ConfigurationError(
        f"@{decorator} is above the line by which Flask gets the view {getattr(view, '__qualname__', view)}"
        f"{place}. So Flask has the undecorated function, and @{decorator} would do nothing. Put it below "
        "@….route(…), next to the function."
    )
