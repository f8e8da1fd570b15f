"""The errors and log lines that a failure ends in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replswitch.drivers import Fault
from replswitch.engine.events import tell
from replswitch.errors import NoServerError
from replswitch.place import application_place

if TYPE_CHECKING:
    from replswitch.drivers import Driver
    from replswitch.engine.servers import Server


def no_master(server: Server, error: BaseException, driver: Driver) -> NoServerError:
    """Return the error for a master that cannot be reached, or is full (F3)."""
    why, cure = "cannot be reached", "Start it, or correct its settings."
    if driver.classify(error) is Fault.FULL:
        why, cure = "accepts no further connections", "Let the application open fewer, or the server take more."
    return NoServerError(
        f"The master {server.name} {why}: {error}. {cure} Reads in slave state continue meanwhile.", server=server.name
    )


def master_is_read_only(server: Server, error: BaseException) -> NoServerError:
    """Return the error for a master that has become read-only, and not only while another one takes its place."""
    return NoServerError(
        f"The master {server.name} is read-only: {error}. If another server is the master now, let the name lead to "
        "it, or correct its settings. What was refused has changed nothing; what was committed before it remains.",
        server=server.name,
    )


def lost_write(server: Server) -> NoServerError:
    """Return the error for a write that a lost master has failed, as another server has shown by refusing it."""
    return NoServerError(
        f"The connection to the master {server.name} was lost in a write, at {application_place()}. It is not known "
        "whether it was done, so it is not tried again. Look, and write again if it was not.",
        server=server.name,
    )


def no_slave(database: str) -> NoServerError:
    """Return the error for a read that no slave can serve, where the master may not."""
    return NoServerError(
        'No slave can serve the read, and the option "fallback" is "error", so the master does not. Slaves that have '
        "failed are tried again automatically.",
        server=database,
    )


def report_moved_write(database: str, server: str, error: BaseException | None, *, has_read: bool) -> None:
    """Count and log that a write in slave state runs on the master.

    Args:
        database: what people call it.
        server: the slave; empty where none was asked.
        error: what the slave said; None for a session's flush, which is moved before it is tried.
        has_read: the scope has read from a slave before.
    """
    refused = "" if error is None else f" It was refused on a read-only connection to {server}: {error}."
    text = "A write in slave state was moved to the master, at %s.%s Before it, this scope had %s from a slave. %s"
    before = "read" if has_read else "not read"
    tell("moved-write", database, server, text, application_place(), refused, before, "Call use_master() there.")
