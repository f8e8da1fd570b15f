"""Fall back to time if positions are not available. A marker is then valid for `cookie_max_age` (P3)."""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger("replswitch.positions")

# The texts that were logged already. Each is logged once, not once for each connection.
_logged: Final[set[str]] = set()


def fall_back_to_clock(reason: str) -> None:
    """Log why markers have no positions, so that they are valid for a fixed time. Log each reason once."""
    warn_once(f"{reason}. After a write, the master serves the visitor's reads for `cookie_max_age` seconds.")


def warn_once(text: str) -> None:
    """Log a warning once in each process."""
    if text not in _logged:
        _logged.add(text)
        logger.warning("%s", text)
