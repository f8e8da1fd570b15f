"""The state of the servers of a database, as they report it: for the commands and the checks of the bindings.

Each server is asked through a short connection of its own, outside the links that the application uses.
"""

from __future__ import annotations

from replswitch.report.probe import servers_of, statuses
from replswitch.report.status import COLUMNS, TIMEOUT, Asked, ServerStatus, problems, table

__all__ = ["COLUMNS", "TIMEOUT", "Asked", "ServerStatus", "problems", "servers_of", "statuses", "table"]
