"""What is the same with every driver of MariaDB and MySQL: the base class of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replswitch.drivers import gtids, mysql

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from types import ModuleType

    from replswitch.drivers import Raw
    from replswitch.positions import Position


class MySQLFamilyDriver:
    """The part of `replswitch.drivers.Driver` that the server answers, and not the driver."""

    module: ModuleType
    tells_of_writes: bool

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the socket, or the host with its port where that is not 3306."""
        return mysql.address(settings)

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database; empty where the settings name none."""
        return mysql.schema(settings)

    def standing(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Ask for the server's own mark and its position."""
        return gtids.standing(raw)

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Let the server wait."""
        return gtids.wait_for(raw, position, seconds)

    def seconds_behind(self, raw: Raw) -> float | None:
        """Ask for the state of replication."""
        return gtids.seconds_behind(raw)

    def refused_write(self, error: BaseException) -> bool:
        """Errors 1792 and 1836, and 1290 where it names a read-only option."""
        return mysql.refused_write(error)

    def learns_behind_rows(self, raw: Raw) -> bool:
        """It may: what was committed stands there."""
        return True

    def is_full(self, error: BaseException | None) -> bool:
        """Error 1040."""
        return error is not None and mysql.is_full(error)

    def unreachable(self, error: BaseException) -> bool:
        """The codes of a server that is not there, and of a connection that is gone."""
        return isinstance(error, self.module.OperationalError) and mysql.unreachable(error)

    def conflicted(self, error: BaseException) -> bool:
        """A deadlock, a lock that was waited for too long, a row that has changed."""
        return mysql.conflicted(error)

    def timed_out(self, raw: Raw, error: BaseException) -> bool:
        """A lost connection, with words that say so."""
        return mysql.timed_out(error)

    def not_sent(self, error: BaseException) -> bool:
        """Error 2006."""
        return mysql.not_sent(error)

    def read_only_master(self, error: BaseException) -> bool:
        """Error 1836, and 1290 where it names a read-only option."""
        return mysql.read_only_master(error)

    def is_lost_master(self, error: BaseException) -> bool:
        """Either of the two."""
        return self.unreachable(error) or self.read_only_master(error)
