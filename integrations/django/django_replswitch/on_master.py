"""Run the queries for data of Django itself, such as sessions, on the master, without a marker (M1)."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

from replswitch import MASTER, unrecorded
from replswitch.decorators import Use

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound=type)


def on_master(reason: str, *names: str) -> Callable[[C], C]:
    """Return a decorator for a mixin, which makes the methods ``names`` run on the master and record no writes."""
    use = Use(MASTER, reason)

    def decorate(mixin: C) -> C:
        for name in names:
            setattr(mixin, name, _on_master(use, mixin, name))
        return mixin

    return decorate


def _on_master(use: Use, mixin: type, name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with use, unrecorded(repeatable=True):
            return getattr(super(mixin, self), name)(*args, **kwargs)

    async def asynchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        with use, unrecorded(repeatable=True):
            return await getattr(super(mixin, self), name)(*args, **kwargs)

    made = asynchronous if iscoroutinefunction(getattr(mixin, name)) else method
    return classmethod(made) if hasattr(getattr(mixin, name), "__self__") else made
