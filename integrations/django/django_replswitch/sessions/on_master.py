"""Takes what a session store does in the database to the master, without marking the visitor (M1)."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.base import SessionBase

from replswitch import unrecorded
from replswitch.decorators import use_master


def _on_master(name: str) -> Any:
    """Return a method that calls the store's own of the same name on the master."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with use_master(), unrecorded(repeatable=True):
            return getattr(super(OnMaster, self), name)(*args, **kwargs)

    async def asynchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        with use_master(), unrecorded(repeatable=True):
            return await getattr(super(OnMaster, self), name)(*args, **kwargs)

    return asynchronous if name.startswith("a") else method


class OnMaster(SessionBase):
    """A mixin in front of a session store."""

    load = _on_master("load")
    exists = _on_master("exists")
    create = _on_master("create")
    save = _on_master("save")
    delete = _on_master("delete")
    clear_expired: Any = classmethod(_on_master("clear_expired"))

    aload = _on_master("aload")
    aexists = _on_master("aexists")
    acreate = _on_master("acreate")
    asave = _on_master("asave")
    adelete = _on_master("adelete")
    aclear_expired: Any = classmethod(_on_master("aclear_expired"))
