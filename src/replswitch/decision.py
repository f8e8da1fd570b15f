"""The two states, and a decision: a state with the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["master", "slave"]

MASTER: Final = "master"
SLAVE: Final = "slave"


@dataclass(frozen=True, slots=True)
class Decision:
    """A state, the reason for it, and the chosen server, if there is one.

    Attributes:
        state: ``"master"`` or ``"slave"``.
        reason: a word, for logs and the ``Replswitch`` header: ``disabled``, ``marker``, ``override``,
            ``method``, ``use_master``, ``use_slave``, ``session``, ``cache``, ``default``, ``transaction``,
            ``own-write``, ``moved-write``, ``not-replicated``, ``no-slave``, ``no-master``, ``replay``, ``learned``.
        server: the server's name; None until a server is chosen.
        final: the state holds for everything in the request, whichever state its code asks for.
    """

    state: State
    reason: str
    server: str | None = None
    final: bool = False
