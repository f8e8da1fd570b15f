"""Query the state of the servers of a database, for the commands and the checks of the bindings.

Each server is queried over a short connection of its own, and not over the connections that the application uses.
"""

from __future__ import annotations

from replswitch.report.probe import names_without_address, servers_of, statuses
from replswitch.report.status import COLUMNS, TIMEOUT, Asked, ServerStatus, problems, table

__all__ = [
    "COLUMNS",
    "TIMEOUT",
    "Asked",
    "ServerStatus",
    "names_without_address",
    "problems",
    "servers_of",
    "statuses",
    "table",
]
