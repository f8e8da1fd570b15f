"""How the servers of a database stand, asked of themselves: for the commands and the checks of the bindings.

Each server is asked through a short connection of its own, outside the links that the application uses.
"""

from __future__ import annotations

from replswitch.standing.asking import standings
from replswitch.standing.found import COLUMNS, Standing
from replswitch.standing.servers import TIMEOUT, Asked, servers_of, time_limits
from replswitch.standing.telling import problems, table

__all__ = ["COLUMNS", "TIMEOUT", "Asked", "Standing", "problems", "servers_of", "standings", "table", "time_limits"]
