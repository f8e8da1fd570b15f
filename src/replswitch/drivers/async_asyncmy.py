"""asyncmy, on MariaDB and MySQL, under SQLAlchemy's ``AsyncEngine``."""

from __future__ import annotations

from typing import Any

from replswitch.drivers.async_mysql import AsyncMySQLDriver, Tracked


class _Connection(Tracked):
    async def _read_ok_packet(self) -> Any:
        """Read the answer to a commit, for example. Older versions of asyncmy do not return it."""
        connection: Any = super()
        answer = await connection._read_ok_packet()
        if hasattr(answer, "message"):
            self.replswitch.record_answer(answer.server_status, answer.message)
        else:
            self.replswitch.record_unknown_answer()
        return answer


class AsyncmyDriver(AsyncMySQLDriver):
    """See `replswitch.drivers.Driver`."""

    tracked = _Connection
