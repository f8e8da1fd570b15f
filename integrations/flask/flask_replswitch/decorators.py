"""``use_master`` and ``use_slave`` for views, for other functions and for ``with`` blocks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from flask import has_request_context

from flask_replswitch.serving import instruction_for, kept
from flask_replswitch.views import remember
from replswitch import MASTER, SLAVE, ConfigurationError
from replswitch.decorators import Use, resumed, verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.decorators import P, R
    from replswitch.state import Frame


class _Use(Use):
    """Use the master, or a slave, as a decorator for views and other functions, or in a ``with`` block.

    Put the decorator below ``@app.route``. For class-based views, write ``decorators = [use_slave]`` into the class, or
    decorate a method. If the middleware has not run, the decorator does the middleware's work for the view. It reads
    the marker, and sets one if the view writes.

    Raises:
        ConfigurationError: the decorated object is a class, or a view that is already registered with Flask.
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        self._is_used = True
        if inspect.isclass(function):
            raise ConfigurationError(
                f"use_{self.state} decorates functions, and {function!r} is a class. Flask builds the view from the"
                " class itself, so the decorator would have no effect. Write `decorators ="
                f" [use_{self.state}]` into the class, or decorate its methods."
            )
        if not has_request_context():  # a function decorated during a request does not become a view
            remember(function, f"use_{self.state}")
        return super().__call__(function)

    def instruction(self) -> Frame:
        """Return the frame with the state for one call. In a request, the frame belongs to the scope of the request."""
        return instruction_for(self.state) if has_request_context() else super().instruction()

    def kept(self, answer: Any, frame: Frame) -> Any:
        """Return the result of a view. A streamed response keeps the view's state.

        If the scope begins with the view, find out what the view has written before the scope ends.
        """
        if not has_request_context():
            return answer
        if frame.begins_scope:
            frame.scope.settle()
        return kept(answer, frame)

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        plain = super()._generator(function)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not has_request_context():
                return plain(*args, **kwargs)
            # The generator runs after the view has returned, so take the instruction of the view's request now.
            return resumed(function(*args, **kwargs), instruction_for(self.state))

        return wrapper


use_master: Final = verb(MASTER, _Use)
use_slave: Final = verb(SLAVE, _Use)
