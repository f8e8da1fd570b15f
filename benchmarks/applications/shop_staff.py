"""The staff of the shop, for the process that fills it and for the visitors."""

from __future__ import annotations

from typing import Final

#: The address and the passphrase.
STAFF: Final = ("staff@example.com", "a passphrase for staff")
