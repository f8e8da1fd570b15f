"""Pass the marker of a request on to the jobs that it starts, because the jobs must see the request's writes."""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict, TypeVar

from replswitch.checking import is_number, require
from replswitch.decision import JOB, MASTER, SLAVE
from replswitch.decorators import Use
from replswitch.errors import ConfigurationError, PositionError
from replswitch.outside import Outside
from replswitch.request.marker import Marker, dump, load
from replswitch.scope import Scope
from replswitch.state import beginning, push, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from replswitch.decision import State

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound="Callable[..., Any]")


class Wait(TypedDict):
    """An option of a job: ``{"wait": 3}`` waits at most 3 seconds for a slave, before the master serves the reads."""

    wait: float


JobOption: TypeAlias = "Literal['master', 'sticky'] | Wait"
"""The option of a job. It selects the servers for the reads of the job; see `job_option`."""

_ATTRIBUTE: Final = "__replswitch_job__"

_WANTED: Final = '"master", "sticky" or {"wait": seconds}, with a finite number of seconds above 0'

# The key in the text of a job whose visitor the option ``rollout`` leaves out.
_HELD_BACK: Final = "held_back"


def carry() -> str:
    """Return a short text for a job. The text names all writes that the running request has made or must see.

    The text is empty if there is nothing that the job must see.

    If the option ``rollout`` leaves the visitor out, the text records this. The job then reads from no slave (R6).

    Call `carry` after the commit. The text is not signed, because only the application can write to its job queue.
    """
    frame = stack()
    if frame is None:
        return ""
    return _text(frame.scope.all_written(), held_back=frame.scope.held_back)


@contextmanager
def resume(token: str, *, max_age: float = 10) -> Iterator[None]:
    """Run a block that sees what `carry` has recorded. Only a slave that has all of this serves reads of the block.

    The block is a scope of its own. `resume` sets no state, so the master serves the block unless code in the block
    calls ``use_slave()``.

    Args:
        token: the result of `carry`.
        max_age: seconds after which a write without a position is ignored, like the option ``cookie_max_age``. Until
            then the master serves everything in the block. Writes with a position are never ignored, however late the
            job runs.

    Raises:
        PositionError: the token does not come from `carry`.
    """
    marker, held_back = _carried(token)
    if marker is not None:
        marker = marker.holding(time.time(), max_age=max_age, position_max_age=inf)
    with push(beginning(_scope(marker, max_age, held_back=held_back))):
        yield


def job_option(option: JobOption) -> Callable[[Function], Function]:
    """Return a decorator for the function of a job. The decorator selects the servers for the reads of the job.

    Args:
        option: with ``"master"``, the master serves the job. With ``"sticky"``, slaves that have what the job must see
            serve its reads outside transactions, and the master serves all other statements. ``{"wait": seconds}`` is
            like ``"sticky"``, but if no slave has what the job must see, the first such read waits for a slave, for at
            most this number of seconds.

    Raises:
        ConfigurationError: ``option`` is none of these.
    """
    _read(option)

    def decorate(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, option)
        return function

    return decorate


def option_of(function: object) -> Any:
    """Return the option that `job_option` has set for a function; None if the function has no option."""
    return getattr(function, _ATTRIBUTE, None)


class Jobs:
    """What the bindings of job queues share. It makes the token in a message, and the scope in which the job runs.

    Args:
        default: the option of jobs without one; see `job_option`.
        max_age: seconds after which a job ignores a write without a position, like the option ``cookie_max_age`` of
            requests. Until then, the master serves the job.
        position_max_age: seconds after which a job ignores a write with a position, like the option
            ``position_max_age`` of requests.

    Raises:
        ConfigurationError: a value is not accepted.

    Attributes:
        sees_outside: True if a job that is started outside any request must see what the process has written outside
            requests; False in a process that only starts scheduled jobs.
    """

    def __init__(self, default: JobOption = "sticky", *, max_age: float = 10, position_max_age: float = 3600) -> None:
        for name, value in (("max_age", max_age), ("position_max_age", position_max_age)):
            require(is_number(value) and value > 0, name, value, "a number of seconds above 0")
        self._default = _read(default)
        self._max_age, self._position_max_age = max_age, position_max_age
        self.sees_outside = True

    def token(self, earlier: str = "", *, joins: bool = False) -> str:
        """Return the token for a job that the running code starts; empty if there is nothing that the job must see.

        Send an empty token as well, because it says that replswitch has sent the message; see `running`.

        Args:
            earlier: the token of an earlier message for the same job, which the new token includes.
            joins: the job continues several jobs, as the body of a chord does. Only the writes of the running job are
                known, so the master serves the new job if it begins within ``max_age``.
        """
        try:
            marker, held_back = _carried(earlier)
        except PositionError:
            return earlier  # a worker cannot read it either, so the master will serve the job
        found, frame = [marker], stack()
        if frame is not None:
            found.append(frame.scope.all_written())
            held_back = held_back or frame.scope.held_back
        if joins:
            found.append(Marker(time.time()))
        outermost = None if frame is None else frame.scope.with_enclosing()[-1]
        if self.sees_outside and (outermost is None or not (outermost.is_request or outermost.is_job)):
            found += [Outside.wrote(), Marker(Outside.may_have_written_at)]
        return _text(self._merged(found), held_back=held_back)

    @contextmanager
    def running(self, *tokens: object, options: Iterable[object] = ()) -> Iterator[None]:
        """Run a block as a job. If a token or an option is wrong, log this, and let the master serve the job.

        Args:
            tokens: the tokens that say what the job must see; None for a message without a token. If the first one is
                None, replswitch has not sent the message, so it is unknown what the job must see. The master then
                serves the job, unless the job has an option of its own. For ``max_age`` seconds, the master also
                serves the next tries of such a job, and the jobs that it starts.
            options: the job's options, the most important one first; None for an option that is not given.
        """
        option = next((each for each in options if each is not None), None)
        is_unknown = tokens[:1] == (None,)  # what the job must see
        state, wait = self._state("master" if is_unknown and option is None else option)
        try:
            carried = [_carried(token) for token in tokens]
        except PositionError as error:
            logger.warning("The master serves a job, because the token of the job cannot be read. %s", error)
            carried, state, is_unknown = [], MASTER, True
        marker = self._merged([marker for marker, _ in carried])
        held_back = [each for _, each in carried if each is not None]
        scope = _scope(marker, self._max_age, held_back=any(held_back) if held_back else None)
        scope.wait = wait
        if is_unknown and state == MASTER:  # its next try, and the jobs that it starts, must see the same
            seen = Marker(time.time())
            scope.marker = seen if marker is None else seen.merge(marker)
        with push(beginning(scope)), Use(state, JOB):
            yield

    def _merged(self, markers: Iterable[Marker | None]) -> Marker | None:
        """Merge the markers of a job into one, without writes that have expired. Return None if no write is left."""
        now = time.time()
        merged: Marker | None = None
        for marker in markers:
            held = marker and marker.holding(now, max_age=self._max_age, position_max_age=self._position_max_age)
            if held is not None:
                merged = held if merged is None else merged.merge(held)
        return merged

    def _state(self, option: object) -> tuple[State, float]:
        if option is None:
            return self._default
        try:
            return _read(option)
        except ConfigurationError as error:
            logger.error("The master serves a job, because the option of the job is wrong. %s", error)
            return MASTER, 0


def _read(option: object) -> tuple[State, float]:
    """Return the state of a job with this option, and how many seconds it waits for a slave."""
    if isinstance(option, dict) and set(option) == {"wait"}:
        require(is_number(option["wait"]) and 0 < option["wait"] < inf, "replswitch", option, _WANTED)
        return SLAVE, option["wait"]
    require(option in ("master", "sticky"), "replswitch", option, _WANTED)
    return (MASTER if option == "master" else SLAVE), 0


def _text(marker: Marker | None, *, held_back: bool | None) -> str:
    """Return the text for a job that must see the writes in a marker; empty if there is nothing to see."""
    carried = {} if marker is None else dump(marker)
    if held_back:
        carried[_HELD_BACK] = True
    return json.dumps(carried, separators=(",", ":")) if carried else ""


def _carried(token: Any) -> tuple[Marker | None, bool | None]:
    """Return a token's marker, and whether ``rollout`` leaves the visitor out; ``(None, None)`` without a token."""
    if token is None or token == "":
        return None, None
    try:
        carried = json.loads(token)
        return load(carried), carried.get(_HELD_BACK) is True
    except (PositionError, TypeError, ValueError, RecursionError) as error:
        raise PositionError(f"The token of a job does not come from carry(): {token!r:.100}.") from error


def _scope(marker: Marker | None, max_age: float, *, held_back: bool | None) -> Scope:
    """Return the scope of a job that must see the writes in a marker."""
    scope = Scope()
    scope.is_job = True
    around = stack()
    if around is not None:  # the job runs within a request, whose visitor must see the job's writes
        scope.within = around.scope
        scope.held_back = around.scope.held_back
    scope.held_back = scope.held_back or held_back
    if marker is not None:
        scope.adopt_marker(marker, max_age)
    return scope
