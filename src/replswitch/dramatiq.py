"""Dramatiq: an actor sees what the code that sent its message has written.

::

    broker.add_middleware(replswitch.dramatiq.ReplSwitch())

This is the only module that imports Dramatiq.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from replswitch.checking import require_package
from replswitch.jobs import Jobs, job_option, option_of
from replswitch.state import stack

require_package("dramatiq", "1.17", "dramatiq")

from dramatiq import Middleware  # noqa: E402 - it fails with a clear error without Dramatiq

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dramatiq import Broker, Message
    from dramatiq.broker import MessageProxy

    from replswitch.jobs import JobOption

__all__ = ["ReplSwitch", "job_option"]

OPTION: Final = "replswitch"
"""The option of an actor, or of a message: ``"master"``, ``"sticky"`` or ``{"wait": seconds}``."""

TOKEN: Final = "replswitch_token"  # noqa: S105 - no secret
"""The name of the message option that contains the token."""

_DELAYED: Final = "replswitch_delayed"
"""The name of the message option that marks a delayed message, until a worker sends the message to its queue."""


class _Running(threading.local):
    """The message that a thread processes, and the scope of this message."""

    message: MessageProxy | None = None
    block: AbstractContextManager[None] | None = None


class ReplSwitch(Middleware):
    """Makes each actor see what the code that sent its message has written.

    Add this middleware to the broker before the actors are declared, in the processes that send messages and in the
    workers. The option ``replswitch`` of an actor or of a message is ``"master"``, ``"sticky"`` or
    ``{"wait": seconds}``, as in ``@dramatiq.actor(replswitch="master")``. `job_option` says what these values mean.

    Args:
        default: the option of actors that do not set it.
        max_age: seconds after which a write without a position is ignored, like the option ``cookie_max_age`` of
            requests. Until then, the master serves the messages that must see the write.
        position_max_age: seconds after which a write with a position is ignored, like the option ``position_max_age``
            of requests.

    Raises:
        ConfigurationError: a value is not accepted.
    """

    def __init__(self, default: JobOption = "sticky", *, max_age: float = 10, position_max_age: float = 3600) -> None:
        self._jobs = Jobs(default, max_age=max_age, position_max_age=position_max_age)
        self._running = _Running()

    @property
    def actor_options(self) -> set[str]:
        """The options that this middleware adds to actors."""
        return {OPTION}

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Put the token into the message."""
        options, is_outside = message.options, stack() is None
        was_delayed = options.pop(_DELAYED, False)
        if delay is not None:
            options[_DELAYED] = True
        elif was_delayed and is_outside:
            return  # the delay is over, and a worker sends the message without changes
        earlier = options.get(TOKEN, "") if is_outside else ""
        options[TOKEN] = self._jobs.token(earlier, joins=self._is_joining(message))

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark a delayed message without a token, so that it gets none when Dramatiq sends it again after the delay."""
        if TOKEN not in message.options:
            message.options[_DELAYED] = True

    def _is_joining(self, message: Message[Any]) -> bool:
        """Return whether a message is the callback of a group, which the last message of the group sends."""
        running = self._running.message
        callbacks = [] if running is None else running.options.get("group_completion_callbacks") or []
        return any(callback.get("message_id") == message.message_id for callback in callbacks)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Begin the scope of the message."""
        self._end()
        actor = broker.get_actor(message.actor_name)
        options = (message.options.get(OPTION), actor.options.get(OPTION), option_of(actor.fn))
        block = self._jobs.running(message.options.get(TOKEN), options=options)
        block.__enter__()
        self._running.message, self._running.block = message, block

    # The middlewares for retries, pipelines and groups send messages after `after_process_message` of this middleware
    # has run. Those messages must see what this message has written, so its scope ends later.

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """End the scope of the message."""
        self._end()

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        """End the scope of the message."""
        self._end()

    def _end(self) -> None:
        block = self._running.block
        self._running.message = self._running.block = None
        if block is not None:
            block.__exit__(None, None, None)
