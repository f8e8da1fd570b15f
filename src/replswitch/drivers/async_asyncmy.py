"""The driver asyncmy for MariaDB and MySQL, as SQLAlchemy's ``AsyncEngine`` uses it."""

from __future__ import annotations

from typing import Any

from replswitch.drivers.async_mysql import AsyncMySQLDriver, Tracked


class _Connection(Tracked):
    async def _read_ok_packet(self) -> Any:
        """Read an OK packet, such as the answer to a commit. Older versions of asyncmy do not return the packet."""
        connection: Any = super()
        answer = await connection._read_ok_packet()
        if hasattr(answer, "message"):
            self.replswitch.record_answer(answer.server_status, answer.message)
        else:
            self.replswitch.record_unknown_answer()
        return answer


class AsyncmyDriver(AsyncMySQLDriver):
    """The `replswitch.drivers.Driver` for asyncmy."""

    tracked = _Connection
