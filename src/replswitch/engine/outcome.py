"""The errors and log lines that result from a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.drivers import Fault
from replswitch.engine.events import in_one_line, tell
from replswitch.errors import NoServerError
from replswitch.place import application_place

if TYPE_CHECKING:
    from replswitch.drivers import Driver
    from replswitch.engine.servers import Server


def no_master(server: Server, error: BaseException, driver: Driver) -> NoServerError:
    """Return the error for a master that cannot be reached, or has reached its connection limit (F3)."""
    why, cure = "cannot be reached", "Start it, or correct its settings."
    if driver.classify(error) is Fault.FULL:
        why = "accepts no further connections"
        cure = "Open fewer connections in the application, or raise the server's limit."
    return NoServerError(
        f"The master {server.name} {why}: {in_one_line(error)}. {cure} Reads in slave state continue meanwhile.",
        server=server.name,
    )


def master_is_read_only(server: Server, error: BaseException) -> NoServerError:
    """Return the error for a write that a read-only master has refused, even after a second try if one was possible."""
    return NoServerError(
        f"The master {server.name} is read-only: {in_one_line(error)}. If another server is the master now, point the "
        "master's host name to it. Otherwise, make this server writable. The refused write has changed nothing; "
        "earlier commits remain.",
        server=server.name,
    )


def lost_write(server: Server) -> NoServerError:
    """Return the error for a statement that failed on a lost master, and that another server has refused as a write."""
    return NoServerError(
        f"The connection to the master {server.name} was lost during a write, at {application_place()}. It is not "
        "known whether the write was done, so it is not tried again. Check the data, and repeat the write if needed.",
        server=server.name,
    )


def no_slave(database: str) -> NoServerError:
    """Return the error for a read that no slave can serve, and that the master may not serve."""
    return NoServerError(
        'No slave can serve the read, and the option "fallback" is "error", so the master does not serve it. Slaves '
        "that have failed are tried again automatically.",
        server=database,
    )


def report_moved_write(database: str, server: str, error: BaseException | None, *, has_read: bool) -> None:
    """Count and log that a write in slave state runs on the master.

    Args:
        database: its display name.
        server: the slave; empty if no slave was tried.
        error: the slave's error; None for a session's flush, which is moved before a slave is tried.
        has_read: the scope has read from a slave before.
    """
    refused = "" if error is None else f" It was refused on a read-only connection to {server}: {in_one_line(error)}."
    text = (
        "A write in slave state was moved to the master. The write is at %s.%s Before the write, this request or job "
        "had %s from a slave. Call use_master() before the write."
    )
    before = "read" if has_read else "not read"
    tell("moved-write", database, server, text, application_place(), refused, before)
