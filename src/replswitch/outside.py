"""What happens in this process outside any request."""

from __future__ import annotations

from itertools import count
from typing import Final

_numbers: Final = count(1)


class Outside:
    """Counts what happens in this process outside any request.

    Attributes:
        commits: a number that each commit on a master changes. If it changes during a request, the request does not run
            again (R5): a thread that the request has started may have made the commit, and nothing shows whether it
            did.
    """

    commits = 0

    @classmethod
    def count(cls) -> None:
        """Count a commit."""
        cls.commits = next(_numbers)  # atomic, so it needs no lock
