"""The members and topics of the forum, for the process that fills it and for the visitors."""

from __future__ import annotations

from typing import Final

PASSPHRASE: Final = "a passphrase of a member"

MEMBERS: Final = tuple(f"member{number}" for number in range(1, 7))

#: How many topics there are beside the first.
TOPICS: Final = 8
