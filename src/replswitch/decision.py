"""The two states, and the decision, which is a state with the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["master", "slave"]
"""The side that code asks for, and the side of a server."""

MASTER: Final = "master"
"""The state in which reads and writes run on the master."""

SLAVE: Final = "slave"
"""The state in which reads run on a slave."""

#: The reason for the state that a job begins in.
JOB: Final = "job"


@dataclass(frozen=True, slots=True)
class Decision:
    """A state, the reason for it, and the chosen server, if there is one.

    Attributes:
        state: ``"master"`` or ``"slave"``.
        reason: a word, for logs and the ``Replswitch`` header: ``disabled``, ``marker``, ``override``,
            ``method``, ``job``, ``use_master``, ``use_slave``, ``session``, ``cache``, ``default``, ``transaction``,
            ``own-write``, ``moved-write``, ``not-replicated``, ``no-slave``, ``no-master``, ``replay``, ``learned``,
            ``rollout``.
        server: the server's name; None until a server is chosen.
        final: the state applies to everything in the request, whichever state its code asks for.
    """

    state: State
    reason: str
    server: str | None = None
    final: bool = False
