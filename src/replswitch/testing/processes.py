"""Pairs whose servers are processes on this machine: their ports, their files, their start and their end.

The processes and their data belong to a :class:`replswitch.testing.kept.Kept`.
"""

from __future__ import annotations

import logging
import secrets
import select
import time
from abc import abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from replswitch.testing.errors import PairError, ServerStartError
from replswitch.testing.kept import Kept
from replswitch.testing.launch import WITHIN, free_port, run
from replswitch.testing.pair import MASTER, ReplicatedPair

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


def is_readable(socket: int) -> bool:
    """Return whether a socket has data to read. Between statements, this means that the server has closed it."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def imported(driver: str, extra: str) -> Any:
    """Import the driver that connects to the servers, and return its module.

    Args:
        driver: the name of the module.
        extra: the extra of replswitch that installs the driver.

    Raises:
        PairError: the driver is not installed.
    """
    try:
        return import_module(driver)
    except ImportError as error:
        raise PairError(f"{driver} is not installed: pip install 'replswitch[{extra}]'") from error


class ProcessPair(ReplicatedPair):
    """A pair of server processes on free ports of 127.0.0.1.

    Attributes:
        user: the application's account.
        password: its password, a new one each time the pair is started.
        database: the application's database.
        port_taken: the text in the log of a server that ends because another process has its port.
        database_setting: the driver's name for the setting that has the database.
    """

    user = "shop"
    database = "shop"
    port_taken: ClassVar[str]
    database_setting: ClassVar[str] = "database"

    def __init__(self, slaves: int = 1) -> None:
        super().__init__(slaves)
        self.password = ""
        self._kept: Kept | None = None
        self._ports: dict[str, int] = {}

    def _parameters(self, name: str) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self._ports[name],
            "user": self.user,
            "password": self.password,
            self.database_setting: self.database,
        }

    @property
    def _keeper(self) -> Kept:
        """The keeper of the processes and the folder."""
        if self._kept is None:
            raise PairError("the pair is closed")
        return self._kept

    def _data(self, name: str) -> Path:
        return self._keeper.folder / name

    def _create(self) -> None:
        began = time.monotonic()
        self._ports.clear()
        self.password = secrets.token_hex(8)
        self._kept = self._keep()
        self._install()
        for name in self.slave_names:
            self._copy(self._data(MASTER), self._data(name))
        logger.debug("made the data folders of %d servers in %.2f s", len(self.names), time.monotonic() - began)

    def _remove(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _is_up(self, name: str) -> bool:
        return name in self._ports and self._keeper.exit_code(name) is None

    def _kill_server(self, name: str) -> None:
        self._keeper.kill(name)
        logger.debug("%s killed", name)

    def _start_server(self, name: str) -> None:
        began = time.monotonic()
        if name in self._ports:
            self._start_on(name, self._ports[name], began + WITHIN)
        else:
            self._start_on_free_port(name)
        logger.debug("%s started on port %d in %.2f s", name, self._ports[name], time.monotonic() - began)

    def _start_on_free_port(self, name: str) -> None:
        """Start a server on a free port. If another process takes the port first, try another port."""
        while name not in self._ports:
            port = free_port()
            try:
                self._start_on(name, port, deadline=0)
            except ServerStartError as error:
                if self.port_taken not in error.log:
                    raise
                logger.info("another process took port %d just before the %s", port, name)
            else:
                self._ports[name] = port

    def _start_on(self, name: str, port: int, deadline: float) -> None:
        """Start a server on this port. If another process has the port, wait for it until the deadline."""
        while True:
            try:
                run(
                    self._keeper,
                    name,
                    self._command(name, port),
                    self._log(name),
                    ready=lambda: self._answers(name, port),
                )
            except ServerStartError as error:
                if self.port_taken not in error.log or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _log(self, name: str) -> Path:
        return self._keeper.folder / f"{name}.log"

    def _keep(self) -> Kept:
        """Return a new `Kept` for the processes and the folder."""
        return Kept()

    @abstractmethod
    def _install(self) -> None:
        """Make the data folder of the master, with the accounts and the database; slaves get a copy."""

    @abstractmethod
    def _copy(self, source: Path, target: Path) -> None:
        """Copy a data folder whose server does not run."""

    @abstractmethod
    def _command(self, name: str, port: int) -> list[str]:
        """Return the command that starts a server."""

    @abstractmethod
    def _answers(self, name: str, port: int) -> bool:
        """Return whether a server that was started on this port can be used."""
