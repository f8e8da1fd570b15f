"""The driver aiomysql for MariaDB and MySQL, as SQLAlchemy's ``AsyncEngine`` uses it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from aiomysql.connection import MySQLResult, OKPacketWrapper, OperationalError

from replswitch.drivers.async_mysql import AsyncMySQLDriver, Tracked

# CR_COMMANDS_OUT_OF_SYNC: https://dev.mysql.com/doc/mysql-errors/en/client-error-reference.html
_OUT_OF_SYNC: Final = 2014


class _Result(MySQLResult):  # type: ignore[misc]  # aiomysql has no types
    """A result that records the status flags from the packet after the last row."""

    def _check_packet_is_eof(self, packet: Any) -> bool:
        if not packet.is_eof_packet():  # this runs for each row
            return False
        # The packet consists of a marker, the number of warnings, and the status:
        # https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_eof_packet.html
        _, self.server_status = struct.unpack_from("<HH", packet.get_all_data(), 1)
        return bool(super()._check_packet_is_eof(packet))


class _Reading:
    """The method of aiomysql's connection that reads results, changed to keep their last status flags."""

    if TYPE_CHECKING:
        _affected_rows: Any
        server_status: int

    async def _read_query_result(self, *, unbuffered: bool) -> None:
        self._result: Any = None
        result = _Result(self)
        if unbuffered:
            try:
                await result.init_unbuffered_query()
            except BaseException:
                result.unbuffered_active = False
                result.connection = None
                raise
        else:
            await result.read()
        self._result = result
        self._affected_rows = result.affected_rows
        if result.server_status is not None:
            self.server_status = result.server_status


class _Connection(Tracked, _Reading):
    """The methods of aiomysql's connection that read answers, changed to pass the answers to the write tracker, too."""

    if TYPE_CHECKING:
        _read_packet: Any

    async def _read_ok_packet(self) -> bool:
        """Read an OK packet, such as the answer to a commit."""
        packet = await self._read_packet()
        if not packet.is_ok_packet():
            raise OperationalError(_OUT_OF_SYNC, "Command Out of Sync")
        answer = OKPacketWrapper(packet)
        self.server_status = answer.server_status
        self.replswitch.record_answer(answer.server_status, answer.message)
        return True


class AiomysqlDriver(AsyncMySQLDriver):
    """The `replswitch.drivers.Driver` for aiomysql."""

    tracked = _Connection
