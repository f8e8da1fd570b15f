"""What happens in this process outside any request."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from replswitch.scope import Scope

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
    def count(cls, scope: Scope | None) -> None:
        """Count a commit, unless it was made in a request's scope."""
        if scope is None or not scope.with_enclosing()[-1].is_request:  # a job outside any request may make requests
            cls.commits = next(_numbers)  # atomic, so it needs no lock
