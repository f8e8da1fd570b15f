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

# What was decorated with an ``@``, with the decorator's name; and the views of applications that have ReplSwitch. What
# cannot be hashed is not noticed.
_decorated: Final[weakref.WeakKeyDictionary[View, str]] = weakref.WeakKeyDictionary()
_given: Final[weakref.WeakSet[View]] = weakref.WeakSet()


class WatchedViews(dict[str, "View"]):
    """The views of an application by their endpoints. Refuses one that was decorated behind Flask's back.

    Args:
        views: those that it has so far.

    Raises:
        ConfigurationError: one of them was decorated so; later, one that the application gets.
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
    """Remember that a function is being decorated, and with it what other decorators have put something around.

    Only where that is done with an ``@`` in front: the name of the function then stands for what comes of it, and
    nobody can mean the function itself. ``use_slave(view)`` may well be a second view beside the first.

    Raises:
        ConfigurationError: an application has it for a view.
    """
    layers = list(_layers(function))
    if any(map(_is_below_running_line, layers)):
        for layer in layers:
            with suppress(TypeError):
                if layer in _given:
                    raise _wrong_order(layer, decorator)
                _decorated[layer] = decorator


def _is_below_running_line(function: View) -> bool:
    """Say whether the application's running line is a decorator of the function, and not a call further on.

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
    """Yield a function, and what decorators have put it around, as functools.wraps tells."""
    layer: View | None = view
    while layer is not None:
        yield layer
        layer = getattr(layer, "__wrapped__", None)


def _wrong_order(view: View, decorator: str) -> ConfigurationError:
    code = getattr([*_layers(view)][-1], "__code__", None)
    place = "" if code is None else f", at {code.co_filename}:{code.co_firstlineno}"
    return ConfigurationError(
        f"@{decorator} stands above the line by which Flask gets the view {getattr(view, '__qualname__', view)}"
        f"{place}. Flask has the undecorated function then, and @{decorator} would do nothing. Put it below "
        "@….route(…), next to the function."
    )
