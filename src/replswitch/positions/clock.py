"""The fallback without positions is time: a marker holds for `cookie_max_age` (P3)."""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger("replswitch.positions")

# The reasons that were logged already. Each is logged once, not once for each connection.
_logged: Final[set[str]] = set()


def fall_back_to_clock(reason: str) -> None:
    """Log why markers have no positions and hold for a fixed time; once for each reason."""
    if reason not in _logged:
        _logged.add(reason)
        logger.warning("%s. After a write the visitor's reads stay on the master for `cookie_max_age`.", reason)
