"""``use_master`` and ``use_slave`` for views, and for everything else."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, cast, overload

from flask import has_request_context

from flask_replswitch.serving import instruction_for, kept, streamed
from flask_replswitch.views import remember, serves_request
from replswitch import MASTER, SLAVE, ConfigurationError
from replswitch.decorators import Use
from replswitch.state import push

if TYPE_CHECKING:
    from collections.abc import Callable

    from replswitch.decorators import P, R


@overload
def use_master() -> Use: ...
@overload
def use_master(function: Callable[P, R]) -> Callable[P, R]: ...
def use_master(function: Callable[P, R] | None = None) -> Use | Callable[P, R]:
    """Use the master, as a decorator of a view, of any function, or in a ``with`` block.

    Put it below ``@app.route``. On class-based views: ``decorators = [use_master]`` in the class, or on a method.
    Where the middleware has not run, a decorated view gets what the middleware does: a marker is read, and one is set
    when the view writes.

    Raises:
        ConfigurationError: what is decorated is no function, or Flask has it for a view already.
    """
    return _Use(MASTER) if function is None else _Use(MASTER)(function)


@overload
def use_slave() -> Use: ...
@overload
def use_slave(function: Callable[P, R]) -> Callable[P, R]: ...
def use_slave(function: Callable[P, R] | None = None) -> Use | Callable[P, R]:
    """Use a slave, as a decorator of a view, of any function, or in a ``with`` block.

    Put it below ``@app.route``. On class-based views: ``decorators = [use_slave]`` in the class, or on a method.
    Where the middleware has not run, a decorated view gets what the middleware does: a marker is read, and one is set
    when the view writes.

    Raises:
        ConfigurationError: what is decorated is no function, or Flask has it for a view already.
    """
    return _Use(SLAVE) if function is None else _Use(SLAVE)(function)


class _Use(Use):
    """The core's, and knows a view when it is called in a request."""

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isclass(function):
            raise ConfigurationError(
                f"use_{self.state} decorates functions, and {function!r} is a class, of which Flask makes its views "
                f"by itself. Write `decorators = [use_{self.state}]` into the class, or decorate its methods."
            )
        plain: Any = super().__call__(function)
        if not has_request_context():  # what is decorated in a request is called, and becomes no view
            remember(function, f"use_{self.state}")
        view: Any = function

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            if not has_request_context():
                return await plain(*args, **kwargs)
            frame = instruction_for(self.state)
            with push(frame):
                answer = await view(*args, **kwargs)
            return kept(answer, frame)

        @functools.wraps(function)
        def generating(*args: Any, **kwargs: Any) -> Any:
            generator = plain(*args, **kwargs)
            is_view = has_request_context() and serves_request(generating)
            return streamed(generator, self.state) if is_view else generator

        @functools.wraps(function)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            if not has_request_context():
                return plain(*args, **kwargs)
            frame = instruction_for(self.state)
            with push(frame):
                answer = view(*args, **kwargs)
            return kept(answer, frame)

        wrapper: Any = synchronous
        if inspect.isasyncgenfunction(function):
            wrapper = plain  # no view
        elif inspect.isgeneratorfunction(function):
            wrapper = generating
        elif inspect.iscoroutinefunction(function):
            wrapper = asynchronous
        return cast("Callable[P, R]", wrapper)
