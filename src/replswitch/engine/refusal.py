"""Make the exception for a write that may not move to the master. It is an error, or makes the request run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.errors import SlaveWriteError
from replswitch.place import application_place
from replswitch.request.replay import Refusal, Replay

if TYPE_CHECKING:
    from replswitch.engine.database import Database
    from replswitch.engine.port import Port
    from replswitch.scope import Scope

#: The reasons why a write may not move to the master.
MAY_NOT_MOVE = 'on_slave_write is "error"'
HAS_READ = "its transaction has read from the slave, and what it read may be stale"
SESSION_CHANGED = "an earlier statement changed the session on the slave, and the master's session lacks that change"
ROWS_ARE_OUT = "its statement has already returned rows from the slave"
OWN_CONNECTION = "the application has chosen the connection itself"


def refusal(
    port: Port, database: Database, scope: Scope, server: str, why: str, error: BaseException | None = None
) -> BaseException:
    """Return the exception to raise: SlaveWriteError (S8), or `Replay` to run the request again on the master (R5).

    Args:
        port: the binding's port.
        database: the database.
        scope: the running scope.
        server: the slave; empty if no slave was tried.
        why: the reason, as the second half of a sentence.
        error: the slave's error; None if no slave was tried.
    """
    refused = _refused_write(server, why, error)
    raised = port.as_own(refused)
    request = scope.safe_request
    if request is None or database.options.on_slave_write != "master":
        return raised
    request.refuse(database.key, Refusal(database.name, server, refused.place))
    if not request.runs_here or not scope.may_run_again():
        return raised
    raised.__cause__ = error
    return Replay(raised)


def _refused_write(server: str, why: str, error: BaseException | None) -> SlaveWriteError:
    place = application_place()
    by = f" was refused on a read-only connection to {server} ({error}) and" if error is not None else " was"
    return SlaveWriteError(
        f"A write in slave state, at {place},{by} not moved to the master, because {why}. Call use_master() before the "
        "first statement that belongs to the write.",
        server=server,
        place=place,
    )
