"""Notices a decorator above ``@app.route``: Flask has the undecorated function then, and would never call ours.

Flask keeps no list of applications, so this works for those that have ReplSwitch. A function was decorated, and what
came of that is no view by the time the function itself becomes one:

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

import weakref
from typing import TYPE_CHECKING, Any, Final

from replswitch import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flask import Flask

    View = Callable[..., Any]

# What was decorated, and has not been seen inside a view since, with the decorator's name. By identity: not every
# callable can be hashed.
_decorated: Final[dict[int, tuple[weakref.ref[View], str]]] = {}

# The views of the applications that have ReplSwitch.
_watched: Final[weakref.WeakSet[WatchedViews]] = weakref.WeakSet()


class WatchedViews(dict[str, "View"]):
    """The views of an application by their endpoints. Refuses one that was decorated behind Flask's back.

    Raises:
        ConfigurationError: one of the views was.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]  # there is one for an application, and it equals no other

    def __init__(self, views: Mapping[str, View]) -> None:
        super().__init__(views)
        self.latest: View | None = None
        for view in views.values():
            _found_inside(view)
        for view in views.values():
            _refuse_undecorated(view)
        _watched.add(self)

    def __setitem__(self, endpoint: str, view: View) -> None:
        _found_inside(view)
        _refuse_undecorated(view)
        super().__setitem__(endpoint, view)
        self.latest = view


def watch(app: Flask) -> None:
    """Look at the views of an application: those that it has, and those that it is going to get.

    Raises:
        ConfigurationError: one of them was decorated behind Flask's back.
    """
    app.view_functions = WatchedViews(app.view_functions)


def remember(function: View, decorator: str) -> None:
    """Remember that a function was decorated, and with it those that other decorators had put something around.

    Raises:
        ConfigurationError: an application has just got it for a view.
    """
    for views in _watched:
        if views.latest is not None and any(views.latest is layer for layer in _layers(function)):
            raise _wrong_order(views.latest, decorator)
    for layer in _layers(function):
        _remember(layer, decorator)


def _remember(function: View, decorator: str) -> None:
    key = id(function)
    try:
        reference = weakref.ref(function, lambda _: _decorated.pop(key, None))
    except TypeError:
        return  # nobody can tell when it is gone
    _decorated[key] = (reference, decorator)


def _found_inside(view: View) -> None:
    """Forget what a view has inside: it is decorated in the right order."""
    for layer in _layers(view):
        if layer is not view:
            _decorated.pop(id(layer), None)


def _refuse_undecorated(view: View) -> None:
    reference, decorator = _decorated.get(id(view), (None, ""))
    if reference is not None and reference() is view:
        raise _wrong_order(view, decorator)


def _layers(view: View) -> Iterator[View]:
    """Yield a function, and what decorators have put it around, as functools.wraps tells."""
    seen: set[int] = set()
    layer: View | None = view
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        layer = getattr(layer, "__wrapped__", None)


def _wrong_order(view: View, decorator: str) -> ConfigurationError:
    code = getattr(view, "__code__", None)
    place = "" if code is None else f", at {code.co_filename}:{code.co_firstlineno}"
    return ConfigurationError(
        f"@{decorator} stands above the line by which Flask gets the view {getattr(view, '__qualname__', view)}"
        f"{place}. Flask has the undecorated function then, and @{decorator} would do nothing. Put it below "
        "@….route(…), next to the function. If the function shall be a view with and without it, give Flask the "
        "decorated one first."
    )
