"""Who works in the shop: what the process that fills it and the visitors both know."""

from __future__ import annotations

from typing import Final

#: The address and the passphrase.
STAFF: Final = ("staff@example.com", "a passphrase for staff")
