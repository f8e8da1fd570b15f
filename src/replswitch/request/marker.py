"""The marker: a signed and dated token with the position of what a visitor has written. It is sent in a cookie."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import random
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from itsdangerous import BadData, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from replswitch.checking import is_number
from replswitch.errors import ConfigurationError, PositionError
from replswitch.positions import read, write

if TYPE_CHECKING:
    from replswitch.positions import Position
    from replswitch.request.options import Secret

logger = logging.getLogger(__name__)

#: How far a marker's date may be in the future, in seconds, because the clocks of servers differ (M2).
FUTURE: Final = 60

#: How many names a marker's cookie has, because parallel responses must not overwrite each other's marker (M4).
NAMES: Final = 4

#: The longest token, in characters, of a marker with positions. If it would be longer, the marker has only a time. The
#: limit leaves room for the cookie's attributes and for other cookies.
LONGEST: Final = 2800

#: The longest cookie of replswitch, in characters: the minimum that browsers must support (RFC 6265, section 6.1).
MAX_LENGTH: Final = 4096

#: How many tokens of one request are read: more than fit into the headers that most servers accept. Other sites and
#: scripts may set cookies with the same names, for several paths and domains; this many forged tokens cost only
#: milliseconds (M4).
MAX_TOKENS: Final = 512

# The form of a token: a payload, with a leading dot if it is compressed, and a signature.
_SHAPE: Final = re.compile(r"\.?[\w-]{8,}\.[\w-]{43}", re.ASCII)


Positions = Mapping[str, "Position"]
"""A position of each replicated set, by the set's name."""

Step = tuple[float, Positions]
"""A time, and the positions of all writes that were made at this time or later. Slaves must have reached them."""

Write = tuple[str, "Position | None", float]
"""The name of the replicated set, a position that includes the write (None if unknown), and the time of the write."""


@dataclass(frozen=True, slots=True)
class Marker:
    """What a visitor must see: all writes up to a position of each replicated set, or up to a time.

    Times are in seconds since the epoch, by the application's clock.

    Attributes:
        written_at: when the latest write whose position is unknown was committed; None without one.
        positions: the position that the slaves of each written set must have reached.
        placed_at: when the latest write with a position was committed; None without one.
        older: the steps, the latest first, so that each position expires by its own age (M2). The last step has all
            `positions`. Empty if there is only one step.
    """

    written_at: float | None = None
    positions: Positions = field(default_factory=dict)
    placed_at: float | None = None
    older: tuple[Step, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the marker, the latest time first; see `Step`."""
        return self.older or (() if self.placed_at is None else ((self.placed_at, self.positions),))

    def merge(self, other: Marker, within: float = 0) -> Marker:
        """Return the marker that requires everything that either of the two requires (M4).

        Args:
            other: the other marker.
            within: the length of a period in seconds; all writes of a period may get the date of its latest write.
        """
        written_at = _latest(self.written_at, other.written_at)
        steps: list[Step] = []
        asked: Positions = {}
        for time, positions in sorted(self.steps + other.steps, key=lambda step: step[0], reverse=True):
            if any(type(asked.get(name, each)) is not type(each) for name, each in positions.items()):
                written_at = _latest(written_at, steps[0][0])  # positions of two engines cannot be compared
            more = joined(asked, positions)
            if more == asked:
                continue
            asked = more
            if steps and (steps[-1][0] == time or (within and steps[-1][0] // within == time // within)):
                time = steps.pop()[0]  # noqa: PLW2901 - the later one
            steps.append((time, asked))
        return _marker(written_at, tuple(steps))

    def with_writes(self, *writes: Write) -> Marker:
        """Return the marker with further writes, in their order. All writes with a position get the latest date."""
        written_at, positions, placed_at = self.written_at or 0, self.positions, self.placed_at or 0
        for name, position, time in writes:
            if position is None or type(positions.get(name, position)) is not type(position):
                written_at = max(written_at, time)  # the position is unknown, or no earlier one can be compared with it
            if position is not None:
                positions, placed_at = joined({name: position}, positions), max(placed_at, time)
        return Marker(written_at or None, positions, placed_at or None)

    def holding(self, now: float, *, max_age: float, position_max_age: float) -> Marker | None:
        """Return a marker with the parts that are not too old; None if all parts are too old.

        Args:
            now: the current time.
            max_age: seconds for which a write without a position is kept.
            position_max_age: seconds for which positions are kept.
        """
        written_at = self.written_at if _is_recent(self.written_at, now, max_age) else None
        if not self.older and written_at == self.written_at and _is_recent(self.placed_at, now, position_max_age):
            return self  # the common case
        steps = tuple(step for step in self.steps if _is_recent(step[0], now, position_max_age))
        if written_at is None and not steps:
            return None
        return self if (written_at, steps) == (self.written_at, self.steps) else _marker(written_at, steps)


def _marker(written_at: float | None, steps: tuple[Step, ...]) -> Marker:
    if not steps:
        return Marker(written_at)
    return Marker(written_at, steps[-1][1], steps[0][0], steps if len(steps) > 1 else ())


def joined(later: Positions, earlier: Positions) -> Positions:
    """Merge positions by replicated set. If two positions of a set cannot be merged, use the one in ``later``."""
    both = {**earlier, **later}
    for name, position in earlier.items():
        if name in later and type(position) is type(later[name]):
            both[name] = later[name].merge_earlier(position)
    return both


def _latest(first: float | None, second: float | None) -> float | None:
    return max((time for time in (first, second) if time is not None), default=None)


def _is_recent(time: float | None, now: float, max_age: float) -> bool:
    return time is not None and -FUTURE <= now - time <= max_age


def dump(marker: Marker) -> dict[str, Any]:
    """Return a marker as values for JSON, with times rounded to milliseconds. `load` reads these values."""
    payload: dict[str, Any] = {}
    if marker.written_at is not None:
        payload["t"] = round(marker.written_at, 3)
    asked: Positions = {}
    for time, positions in marker.steps:
        more = {name: write(position) for name, position in positions.items() if asked.get(name) != position}
        asked = positions
        if "at" not in payload:
            payload["at"], payload["p"] = round(time, 3), more
        else:
            payload["o"] = [*payload.get("o", ()), [round(time, 3), more]]
    return payload


def load(payload: object) -> Marker:
    """Return the marker from the values that `dump` has returned.

    Raises:
        PositionError: the values do not come from `dump`.
    """
    try:
        if not isinstance(payload, dict):
            raise TypeError
        steps: list[Step] = []
        if "at" in payload:
            steps.append((_time(payload["at"]), _positions(payload["p"])))
        for at, more in payload.get("o", ()):
            steps.append((_time(at), {**steps[-1][1], **_positions(more)}))
        return _marker(None if payload.get("t") is None else _time(payload["t"]), tuple(steps))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PositionError(f"{str(payload)[:100]!r} is not a marker.") from error


def _positions(texts: Any) -> dict[str, Position]:
    return {name: read(text) for name, text in texts.items()}


def _time(value: object) -> float:
    if not is_number(value):
        raise TypeError
    return float(value)


class MarkerSigner:
    """Writes markers as signed tokens. Reads tokens from untrusted sources, and raises no error for an invalid token.

    Args:
        secret: the key, or several with the newest first; the newest key signs, all keys are accepted.

    Raises:
        ConfigurationError: there is no secret, or one of them is empty.
    """

    def __init__(self, secret: Secret) -> None:
        secrets = checked_secrets(secret)
        # itsdangerous expects the newest one last.
        self._serializer: URLSafeSerializer = URLSafeSerializer(
            secrets[::-1],
            salt="replswitch.marker",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
        signer = self._serializer.make_signer(self._serializer.salt)
        self._keys = [signer.derive_key(each) for each in secrets]  # itsdangerous would derive them at each token
        self._has_warned = False

    def write(self, marker: Marker) -> str:
        """Return the token. It has only letters, digits and ``-_.``, so it needs no quoting in a cookie or a header."""
        return str(self._serializer.dumps(dump(marker)))

    def write_short(self, marker: Marker) -> tuple[str, Marker]:
        """Return the token, and the marker in it. The marker has no positions if they do not fit into a cookie (P3)."""
        token = self.write(marker)
        if len(token) <= LONGEST:
            return token, marker
        by_time = Marker(_latest(marker.written_at, marker.placed_at))
        return self.write(by_time), by_time

    def read(self, tokens: Iterable[str], *, now: float, max_age: float, position_max_age: float) -> Marker | None:
        """Merge the tokens that are valid and not too old; ignore the others (M5).

        Args:
            tokens: any strings that a client has sent. Of more than `MAX_TOKENS`, the first and the last are read.
            now: seconds since the epoch.
            max_age: seconds for which a write without a position is kept.
            position_max_age: seconds for which positions are kept.

        Returns:
            one marker that requires everything that any of the tokens requires; None if no token is valid.
        """
        merged: Marker | None = None
        shaped = list(dict.fromkeys(each for each in tokens if len(each) <= MAX_LENGTH and _SHAPE.fullmatch(each)))
        if len(shaped) > MAX_TOKENS:
            del shaped[MAX_TOKENS // 2 : -MAX_TOKENS // 2]
        for token in shaped:
            marker = self._read_one(token)
            if marker is not None:
                self._look_at_clock(marker, now)
                marker = marker.holding(now, max_age=max_age, position_max_age=position_max_age)
            if marker is not None:
                merged = marker if merged is None else merged.merge(marker)
        return merged

    def _read_one(self, token: str) -> Marker | None:
        payload, _, signature = token.encode().rpartition(b".")
        digests = (hmac.digest(key, payload, "sha256") for key in self._keys)
        # Compare as text, because the last character of a signature has unused bits. Accept only the original text.
        if not any(hmac.compare_digest(base64_encode(digest), signature) for digest in digests):
            return None
        try:
            return load(self._serializer.load_payload(payload))
        except (BadData, PositionError):
            return None

    def _look_at_clock(self, marker: Marker, now: float) -> None:
        """Log, once, that a marker is ignored because its date is too far in the future."""
        ahead = (_latest(marker.written_at, marker.placed_at) or now) - now
        if ahead > FUTURE and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "A visitor sent a marker (the signed cookie) that is dated %.0f s in the future. At most %d s are "
                "accepted, so this visitor may miss their own writes. Synchronize the clocks of all servers of the "
                "application by NTP. This is logged once.",
                ahead,
                FUTURE,
            )


class MarkerNames:
    """The names of a marker's cookie, such as ``just_updated`` and ``just_updated_1``, which are used in turn (M4).

    Responses that are produced at the same time get different names. Each process begins with a random name, so that
    processes seldom use the same name at the same time.
    """

    def __init__(self, cookie_name: str) -> None:
        self.all: Final = (cookie_name, *(f"{cookie_name}_{number}" for number in range(1, NAMES)))
        start = random.randrange(NAMES)  # noqa: S311 - spreads load, hides nothing
        #: Returns the name for the next marker.
        self.next: Final = itertools.cycle(self.all[start:] + self.all[:start]).__next__


def marker_tokens(cookie_header: str, names: Collection[str]) -> list[str]:
    """Return the values of all cookies with one of the names, even if several cookies have the same name.

    No library is used, because it would unquote all other cookies as well. A token needs no unquoting, and this
    function takes linear time.
    """
    pairs = (pair.partition("=") for pair in cookie_header.split(";"))
    return [value.strip(' \t"') for name, _, value in pairs if name.strip() in names]


def checked_secrets(secret: Secret) -> list[bytes]:
    """Return the keys in the argument ``secret``, the newest first.

    Raises:
        ConfigurationError: there is no secret, or one of them is empty or not a string.
    """
    given = [secret] if isinstance(secret, str | bytes) else secret
    secrets = list(given) if isinstance(given, Iterable) else []
    if not secrets or not all(isinstance(each, str | bytes) and each for each in secrets):
        raise ConfigurationError(
            "There is no secret to sign markers with, or it is not a string. Give `secret` a long random string, the "
            "same in every process of the application, or a list of them with the newest first; `python -c 'import "
            "secrets; print(secrets.token_urlsafe(32))'` makes one."
        )
    return [each.encode() if isinstance(each, str) else each for each in secrets]
