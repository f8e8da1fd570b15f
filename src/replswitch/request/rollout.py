"""The option ``rollout``: which visitors read from slaves, and the ticket that keeps each visitor on one side (R6)."""

from __future__ import annotations

import hmac
import itertools
import random
import re
from base64 import urlsafe_b64encode
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple

from replswitch.request.marker import marker_tokens
from replswitch.request.options import LONGEST_AGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from replswitch.request.options import RequestOptions

#: How many different numbers the tickets have. It is enough for a share of 0.01 %, and too few to identify a visitor.
NUMBERS: Final = 10_000

#: Seconds for which a browser keeps a ticket.
TICKET_AGE: Final = LONGEST_AGE

# The step from the number of one new visitor to that of the next, close to the golden ratio. So the numbers of new
# visitors in a row are spread evenly, and the share is about right even among a few visitors.
_STEP: Final = 6181

# The form of a ticket: a number and a signature. A marker is longer, so neither can be taken for the other.
_SHAPE: Final = re.compile(r"\d{1,4}\.[\w-]{43}", re.ASCII)


class Ticket(NamedTuple):
    """The ticket of a visitor.

    Attributes:
        text: the signed number.
        is_new: the visitor does not have it yet, so the response must contain it.
    """

    text: str
    is_new: bool


class Rollout:
    """Decides which visitors read from slaves. The threads of an application share it.

    A visitor gets a ticket, which is a signed number below `NUMBERS`. The visitor reads from slaves if the number is
    below the share times `NUMBERS`. So if the share grows, visitors are added, and no visitor goes back to the master.

    Args:
        options: the options of requests.
        secrets: the keys for the tickets; the first one signs, all are accepted.

    Attributes:
        cookie_name: the name of the ticket's cookie.
    """

    def __init__(self, options: RequestOptions, secrets: Iterable[bytes]) -> None:
        self.cookie_name = f"{options.cookie_name}_rollout"
        self._reads_header = options.header
        # Tickets have keys of their own, so that no other signature with the same secret is a valid ticket.
        self._keys = [hmac.digest(each, b"replswitch.rollout", "sha256") for each in secrets]
        start = random.randrange(NUMBERS)  # noqa: S311 - spreads load, hides nothing
        self._count = itertools.count(start).__next__
        #: Returns the ticket with a given number. Each ticket is signed only once.
        self.ticket = lru_cache(maxsize=NUMBERS)(partial(_signed, key=self._keys[0]))

    def decide(self, share: float, cookies: str, header: str) -> tuple[bool, Ticket | None]:
        """Decide whether a visitor is left out, and give a new visitor a ticket.

        Args:
            share: the share of the visitors that read from slaves, from 0 to 1; True and False decide for this visitor.
            cookies: the header ``Cookie``.
            header: the header ``Replswitch-Marker``, which is used only with the option ``header``.

        Returns:
            True if the visitor reads from no slave; and the ticket, or None if none was needed for the decision.
        """
        if share <= 0 or share >= 1:
            return share <= 0, None
        tokens = marker_tokens(cookies, {self.cookie_name})
        if header and self._reads_header:
            tokens += map(str.strip, header.split(","))
        number = min(self._valid(tokens), default=None)
        if number is None:
            number = self._count() * _STEP % NUMBERS
        text = self.ticket(number)
        return number >= share * NUMBERS, Ticket(text, text not in tokens)

    def _valid(self, tokens: Iterable[str]) -> Iterator[int]:
        """Yield the numbers of the valid tickets.

        Other sites and scripts may set cookies with the same name, so there may be several, in any order.
        """
        for token in {each for each in tokens if _SHAPE.fullmatch(each)}:
            number = int(token.partition(".")[0])
            older = (_signed(number, key) for key in self._keys[1:])
            if any(hmac.compare_digest(token, ticket) for ticket in (self.ticket(number), *older)):
                yield number


def _signed(number: int, key: bytes) -> str:
    digest = hmac.digest(key, str(number).encode(), "sha256")
    return f"{number}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"
