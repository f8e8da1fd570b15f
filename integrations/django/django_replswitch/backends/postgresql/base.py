"""The ``DatabaseWrapper`` of the PostgreSQL backend, in the module in which Django looks for it."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from os import getpid
from typing import TYPE_CHECKING, Any, Final

from django.db.backends.postgresql import base as django_base
from django.utils.asyncio import async_unsafe

from django_replswitch.backends.in_test_case import guarded_link
from django_replswitch.backends.postgresql.cursor import NamedCursor, PostgreSQLCursor, cursor_maker
from django_replswitch.backends.wrapper import SwitchingWrapper
from django_replswitch.servers import close_pools
from replswitch import SLAVE
from replswitch.drivers import load_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_replswitch.backends.link import WrapperLink
    from replswitch.drivers import Raw
    from replswitch.engine.servers import Link, Server

base: Any = django_base  # Any, because the type stubs leave out names that are used here

#: Django's connection pools (``OPTIONS["pool"]``), by server and by alias. Django itself keeps one for each alias.
_POOLS: Final[weakref.WeakKeyDictionary[Server, dict[str, Any]]] = weakref.WeakKeyDictionary()


class DatabaseWrapper(SwitchingWrapper, django_base.DatabaseWrapper):
    """Django's PostgreSQL connection, on a master and its slaves."""

    driver: Any = load_driver("psycopg" if base.is_psycopg3 else "psycopg2", binding=True)
    stock = django_base.DatabaseWrapper

    _configure_timezone: Any  # a method of Django that the type stubs leave out

    # Opening and closing

    def get_connection_params(self) -> dict[str, Any]:
        """Return the parameters of the server to which a link is opened. They make a link to a slave read-only (S7)."""
        arguments: dict[str, Any] = self.driver.arguments(
            super().get_connection_params(), read_only=self._server.state == SLAVE
        )
        return arguments

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to the selected server, or take a live connection from its pool."""
        read_only = self._server.state == SLAVE
        options = self.settings_dict["OPTIONS"]
        if read_only and (pool := options.get("pool")):
            # If the pool cannot connect, a read waits for it only as long as for a new connection.
            pool = {"timeout": conn_params["connect_timeout"], **({} if pool is True else pool)}
            self.settings_dict["OPTIONS"] = {**options, "pool": pool}  # the settings of this server alone
        while True:
            with self.driver.connecting(conn_params):
                raw = super().get_new_connection(conn_params)
            is_taken = False
            try:
                is_taken = self.driver.take(raw, self.settings_dict["OPTIONS"], read_only=read_only)
            finally:
                if not is_taken and getattr(raw, "_pool", None) is not None:
                    self._give_back(raw)  # it is closed, so the pool replaces it
            if is_taken:
                return raw

    @property
    def _connection_pools(self) -> dict[str, Any]:
        return _POOLS.setdefault(self._server, {})

    @staticmethod
    def close_pools_of(server: Server) -> None:
        """Close the pools of a server."""
        for pool in _POOLS.pop(server, {}).values():
            pool.close()

    def close_pool(self) -> None:
        """Close the pools of all servers of the alias."""
        for pools in _POOLS.values():
            if (pool := pools.pop(self.alias, None)) is not None:
                pool.close()

    def close_raw(self, link: Link) -> None:
        """Close the connection of a link, or give it back to its pool."""
        if getattr(link.raw, "_pool", None) is None or link.process != getpid():
            super().close_raw(link)
            return
        if not self.driver.reusable(link.raw):
            super().close_raw(link)  # the pool then replaces it
        self._give_back(link.raw)

    @staticmethod
    def _give_back(raw: Raw) -> None:
        raw._pool.putconn(raw)

    def _set_autocommit(self, autocommit: bool) -> None:
        """Do nothing, because the connections stay in autocommit mode, and `begin_on` begins transactions."""

    def begin_on(self, link: Link) -> None:
        """Begin a transaction, unless the application has already sent BEGIN."""
        if not self.driver.in_transaction(link.raw):
            self.driver.begin_now(link.raw)  # if this fails, the transaction can begin on another link

    def ensure_timezone(self) -> bool:
        """Set the time zone on all links after the setting has changed. Return whether any link had to be changed."""
        self.close_pool()
        changed = [self._configure_timezone(link.raw) for link in self._links.values()]
        return any(changed)

    # Cursors

    def switching_cursor(self, name: str | None) -> Any:
        """Return a new cursor. With a name, return a server-side cursor."""
        return PostgreSQLCursor(self) if name is None else NamedCursor(self, name)

    def cursor_maker(self, raw: Raw) -> Callable[[], Any]:
        """Return the function that makes Django's cursors on a connection."""
        return cursor_maker(weakref.proxy(self), raw)

    def view_of_transaction(self, server: Server) -> WrapperLink:
        """Return a link that sees what the open transaction has written; see `production_routing`."""
        return guarded_link(self, server, _refusing_writes)


close_pools.append(DatabaseWrapper.close_pools_of)


@contextmanager
def _refusing_writes(raw: Raw) -> Iterator[None]:
    # A subtransaction may be read-only by itself. At its end, the transaction is writable again.
    with raw.cursor() as cursor:
        cursor.execute("SAVEPOINT replswitch_view")
        cursor.execute("SET LOCAL transaction_read_only = on")
        try:
            yield
        except BaseException:
            cursor.execute("ROLLBACK TO SAVEPOINT replswitch_view")
            raise
        finally:
            cursor.execute("RELEASE SAVEPOINT replswitch_view")
