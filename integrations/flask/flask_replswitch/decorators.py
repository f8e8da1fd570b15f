"""``use_master`` and ``use_slave`` for views, and for everything else."""

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
    """Use the master, or a slave, as a decorator of a view, of any function, or in a ``with`` block.

    Put it below ``@app.route``. On class-based views: ``decorators = [use_slave]`` in the class, or on a method.
    Where the middleware has not run, a decorated view gets what the middleware does: a marker is read, and one is set
    when the view writes.

    Raises:
        ConfigurationError: what is decorated is no function, or Flask has it for a view already.
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isclass(function):
            raise ConfigurationError(
                f"use_{self.state} decorates functions, and {function!r} is a class, of which Flask makes its views "
                f"by itself. Write `decorators = [use_{self.state}]` into the class, or decorate its methods."
            )
        if not has_request_context():  # what is decorated in a request is called, and becomes no view
            remember(function, f"use_{self.state}")
        return super().__call__(function)

    def instruction(self) -> Frame:
        """Make the instruction for a call; in a request that of a view."""
        return instruction_for(self.state) if has_request_context() else super().instruction()

    def kept(self, answer: Any, frame: Frame) -> Any:
        """Let the state hold for what a view returned, and find out what it has written before its scope ends."""
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
            # A view's runs when it has returned: its request begins here.
            return resumed(function(*args, **kwargs), instruction_for(self.state))

        return wrapper


use_master: Final = verb(MASTER, _Use)
use_slave: Final = verb(SLAVE, _Use)
