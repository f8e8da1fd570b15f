"""Takes what a session store does in the database to the master, without marking the visitor (M1)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.contrib.sessions.backends.base import SessionBase

from django_replswitch.recording import unrecorded
from replswitch.decorators import use_master

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _on_master() -> Iterator[None]:
    with use_master(), unrecorded():
        yield


class OnMaster(SessionBase):
    """A mixin in front of a session store."""

    def load(self) -> Any:
        """Read the session."""
        with _on_master():
            return super().load()

    async def aload(self) -> Any:
        """Read the session."""
        with _on_master():
            return await super().aload()

    def exists(self, session_key: str) -> Any:
        """Say whether a session has this key."""
        with _on_master():
            return super().exists(session_key)

    async def aexists(self, session_key: str) -> Any:
        """Say whether a session has this key."""
        with _on_master():
            return await super().aexists(session_key)

    def create(self) -> Any:
        """Make a new session."""
        with _on_master():
            return super().create()

    async def acreate(self) -> Any:
        """Make a new session."""
        with _on_master():
            return await super().acreate()

    def save(self, must_create: bool = False) -> Any:
        """Write the session."""
        with _on_master():
            return super().save(must_create)

    async def asave(self, must_create: bool = False) -> Any:
        """Write the session."""
        with _on_master():
            return await super().asave(must_create)

    def delete(self, session_key: str | None = None) -> Any:
        """Delete a session."""
        with _on_master():
            return super().delete(session_key)

    async def adelete(self, session_key: str | None = None) -> Any:
        """Delete a session."""
        with _on_master():
            return await super().adelete(session_key)

    @classmethod
    def clear_expired(cls) -> Any:
        """Delete the sessions that have expired."""
        with _on_master():
            return super().clear_expired()

    @classmethod
    async def aclear_expired(cls) -> Any:
        """Delete the sessions that have expired."""
        with _on_master():
            return await super().aclear_expired()
