"""Who is in the forum, and how much there is: what the process that fills it and the visitors both know."""

from __future__ import annotations

from typing import Final

PASSPHRASE: Final = "a passphrase of a member"

MEMBERS: Final = tuple(f"member{number}" for number in range(1, 7))

#: How many topics there are beside the first.
TOPICS: Final = 8
