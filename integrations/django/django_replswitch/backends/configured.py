"""What Django's connection object takes from the settings of its alias: the servers, and how to connect to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper

from django_replswitch.servers import alias_state, merged, remember_name

if TYPE_CHECKING:
    from replswitch.drivers import Driver
    from replswitch.engine.servers import Server


class ConfiguredWrapper(BaseDatabaseWrapper):
    """Reads the settings of the alias.

    Attributes:
        driver: the driver of all servers. All objects of an alias share it. It is made from the driver of the class.
        stock: the ``DatabaseWrapper`` of Django's own backend.
    """

    driver: Driver
    stock: ClassVar[type[BaseDatabaseWrapper]]

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        remember_name(alias, settings_dict)
        self._alias_settings = settings_dict  # `settings_dict` is replaced while a link is opened
        self._shared = alias_state(alias, settings_dict, self.driver)
        self.driver = self._shared.driver

    def read_settings(self) -> bool:
        """Read the settings again, and return whether there are other servers in them.

        Django makes this object when it loads the models. A test run may change the settings after that, for example to
        use a replicated pair.
        """
        shared = alias_state(self.alias, self._alias_settings, type(self).driver)
        if shared is self._shared:
            return False
        self._shared, self.driver = shared, shared.driver
        return True

    def parameters(self, server: Server) -> dict[str, Any]:
        """Return the parameters with which the driver opens a connection to a server. This is thread-safe."""
        return self.stock_parameters(merged(server, self._alias_settings, self.alias))

    def parameters_for_report(self, server: Server) -> dict[str, Any]:
        """Return the parameters for reports on servers. In a test run, a slave has the NAME of its own settings."""
        return self.stock_parameters(merged(server, self._alias_settings))

    def stock_parameters(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the connection parameters that Django's own backend makes from settings, changed to fit our driver."""
        return self.stock(settings, self.alias).get_connection_params()
