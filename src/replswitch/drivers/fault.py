"""What an error of a driver means for the choice of a server."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """The meaning of an error, as `replswitch.drivers.Driver.classify` returns it.

    What the engine makes of each is the table in `replswitch.engine.failure`.
    """

    REFUSED = "the session is read-only, so the database refused a write"
    READ_ONLY = "the server is read-only, so it refused a write"
    UNSENT = "the connection was gone before the statement was sent, so it certainly did not run"
    LOST = "the connection was lost while the statement ran"
    TIMED_OUT = "no answer came in time: the server may be gone, or the statement slow"
    SLOW = "no answer came in time, and the server accepts new connections"
    DOWN = "the server itself says that it does not serve: it shuts down, or has left its cluster"
    FULL = "the server accepts no further connections"
    CONFLICT = "replication and the read got in each other's way"
    DEADLOCK = "the server ended a deadlock, and rolled the transaction back"
    ROLLED_BACK = "the server rolled the transaction back"
    UNDEFINED = "a table or column does not exist: on a slave, a migration may not have arrived"
    OTHER = "the statement itself is wrong, or something else is that no other server would mend"


#: The server could not be reached, or does not serve.
GONE = frozenset({Fault.UNSENT, Fault.LOST, Fault.TIMED_OUT, Fault.DOWN, Fault.FULL})
