"""The marker: a signed, dated token that says "I wrote". It travels in a cookie."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from itsdangerous import BadData, URLSafeSerializer
from itsdangerous.encoding import base64_decode, base64_encode

from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from replswitch.options import Secret

#: How far a marker's date may lie in the future, in seconds; servers' clocks differ (M2).
FUTURE: Final = 60

#: How many names a marker's cookie has, so that parallel responses do not overwrite each other (M4).
NAMES: Final = 4

#: No cookie of ours is longer, in characters: what RFC 6265, section 6.1, asks browsers to keep at least.
MAX_LENGTH: Final = 4096

#: How many tokens of one request are read: each name may come for several paths and domains, and others may set
#: cookies under our names.
MAX_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Marker:
    """What a visitor must see: everything that was written up to a time.

    Attributes:
        written_at: when the latest write was committed, in seconds since the epoch by the master application's
            clock.
    """

    written_at: float

    def merge(self, other: Marker) -> Marker:
        """Return the marker that asks for everything that either of the two asks for."""
        return self if self.written_at >= other.written_at else other


class MarkerSigner:
    """Writes markers as signed tokens, and reads tokens from anybody without ever raising.

    Args:
        secret: the key, or several with the newest first; the newest signs, all are accepted.

    Raises:
        ConfigurationError: there is no secret, or one of them is empty.
    """

    def __init__(self, secret: Secret) -> None:
        # itsdangerous wants the newest last.
        self._serializer: URLSafeSerializer = URLSafeSerializer(
            _secrets(secret)[::-1],
            salt="replswitch.marker",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def write(self, marker: Marker) -> str:
        """Return the token: only letters, digits and ``-_.``, so it needs no quoting in a cookie or a header."""
        token = self._serializer.dumps({"t": round(marker.written_at, 3)})
        return token if isinstance(token, str) else token.decode("ascii")

    def read(self, tokens: Iterable[str], *, now: float, max_age: float) -> Marker | None:
        """Merge the tokens that are ours and not too old; the others are ignored (M5).

        Args:
            tokens: what a client sent; anything at all.
            now: seconds since the epoch.
            max_age: seconds that a marker holds.

        Returns:
            one marker that asks for what any of them asks for; None when none of them holds.
        """
        merged: Marker | None = None
        readable = (token for token in tokens if len(token) <= MAX_LENGTH)
        for token in itertools.islice(readable, MAX_TOKENS):
            marker = self._read_one(token)
            if marker is None or not -FUTURE <= now - marker.written_at <= max_age:
                continue
            merged = marker if merged is None else merged.merge(marker)
        return merged

    def _read_one(self, token: str) -> Marker | None:
        try:
            payload = self._serializer.loads(token)
            # The last character of a signature has bits to spare; only as it was written is it ours.
            signature = token.rpartition(".")[2]
            if base64_encode(base64_decode(signature)).decode() != signature:
                return None
            written_at = payload.get("t") if isinstance(payload, dict) else None
            if isinstance(written_at, bool) or not isinstance(written_at, int | float):
                return None
            return Marker(float(written_at))
        except (BadData, UnicodeError, OverflowError):
            return None


class MarkerNames:
    """The names of a marker's cookie, used in turn: ``just_updated``, ``just_updated_1`` … (M4).

    Responses that are written at the same time get different names; which one this process begins with is chance,
    so that processes do not go in step.
    """

    def __init__(self, cookie_name: str) -> None:
        self.all: Final = (cookie_name, *(f"{cookie_name}_{number}" for number in range(1, NAMES)))
        start = random.randrange(NAMES)  # noqa: S311 - spreads load, hides nothing
        self._turn = itertools.cycle(self.all[start:] + self.all[:start])

    def next(self) -> str:
        """Return the name for the next marker."""
        return next(self._turn)


def _secrets(secret: Secret) -> list[bytes]:
    given = [secret] if isinstance(secret, str | bytes) else secret
    secrets = list(given) if isinstance(given, Iterable) else []
    if not secrets or not all(isinstance(each, str | bytes) and each for each in secrets):
        raise ConfigurationError(
            "There is no secret to sign markers with, or it is no string. Give `secret` a long random string, the same "
            "in every process of the application, or a list of them with the newest first; `python -c 'import secrets; "
            "print(secrets.token_urlsafe(32))'` makes one."
        )
    return [each.encode() if isinstance(each, str) else each for each in secrets]
