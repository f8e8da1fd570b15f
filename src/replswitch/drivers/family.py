"""What is the same with every driver of MariaDB and MySQL: the base class of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from replswitch.drivers import gtids, mysql
from replswitch.drivers.driver import Driver
from replswitch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from replswitch.drivers.driver import Raw
    from replswitch.drivers.fault import Fault
    from replswitch.positions import Position


class MySQLFamilyDriver(Driver):
    """The part of `replswitch.drivers.Driver` that does not depend on the module."""

    engine = "mysql"

    #: Settings that replswitch makes itself.
    own_settings: ClassVar[set[str]] = {"autocommit"}

    def check(self, settings: Mapping[str, Any], server: str) -> None:
        """Refuse settings that replswitch makes itself."""
        for name in sorted(self.own_settings & set(settings)):
            raise ConfigurationError(
                f'The setting "{name}" of {server} is made by replswitch itself. Leave it out; autocommit is an '
                "argument of connect()."
            )

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the socket, or the host with its port where that is not 3306."""
        return mysql.address(settings)

    def schema(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the database; empty where the settings name none."""
        return mysql.schema(settings)

    def open_for_report(self, settings: Mapping[str, Any], seconds: float) -> Raw:
        """Open a read-only connection with time-outs of its own."""
        return self.open({**settings, **mysql.time_limits(seconds)}, read_only=True)

    def adopt(self, raw: Raw, *, read_only: bool, begin: str) -> None:
        """Turn autocommit off."""
        raw.autocommit(False)

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        """Ask for what identifies the server, and its position."""
        return gtids.fetch_position(raw)

    def wait_for(self, raw: Raw, position: Position, seconds: float) -> bool:
        """Let the server wait."""
        return gtids.wait_for(raw, position, seconds)

    def seconds_behind(self, raw: Raw) -> float | None:
        """Ask for the state of replication."""
        return gtids.seconds_behind(raw)

    def classify(self, error: BaseException, raw: Raw | None = None) -> Fault:
        """Go by the server's error code."""
        return mysql.classify(error)
