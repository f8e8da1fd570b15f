"""The contract of every throw-away pair, and the code that all of them share.

A pair is one master and its slaves. It exists for the time of a test. The differences between the databases are
in :mod:`replswitch.testing.hooks`.
"""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

from replswitch.errors import ConfigurationError
from replswitch.testing.errors import PairError
from replswitch.testing.hooks import PairHooks

if TYPE_CHECKING:
    from collections.abc import Iterator

MASTER = "master"


class ReplicatedPair(PairHooks):
    """A master and its slaves, which run during a ``with`` block (or from ``start()`` to ``close()``).

    The servers are called ``master``, ``slave``, ``slave2``, ``slave3`` and so on; methods take such a ``name``.
    :meth:`reset` undoes what a test did to the servers, but not what the test wrote.

    Args:
        slaves: how many slaves; 1 or more.

    Raises:
        ConfigurationError: ``slaves`` is not a whole number from 1 on.

    Attributes:
        driver: the name of the driver, as ``replswitch.connect(driver=…)`` takes it.
        names: the names of the servers; a server keeps its name when its role changes.
        master_name: the server that is the master now.
    """

    driver: ClassVar[str]

    def __init__(self, slaves: int = 1) -> None:
        if not isinstance(slaves, int) or isinstance(slaves, bool) or slaves < 1:
            raise ConfigurationError(f"slaves={slaves!r}: a pair has 1 slave or more")
        self.names = (MASTER, "slave", *(f"slave{number}" for number in range(2, slaves + 1)))
        self.master_name = MASTER
        self._lag = 0.0
        self._stopped: set[str] = set()
        self._started = False
        self._owner = os.getpid()
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def master(self) -> dict[str, Any]:
        """The connection parameters of the master, as the driver's ``connect()`` takes them."""
        return self._parameters(self._known(self.master_name))

    @property
    def slave_names(self) -> tuple[str, ...]:
        """The servers that are slaves now."""
        return tuple(name for name in self.names if name != self.master_name)

    @property
    def slaves(self) -> list[dict[str, Any]]:
        """The connection parameters of each slave."""
        return [self._parameters(self._known(name)) for name in self.slave_names]

    @abstractmethod
    def connect(self, name: str | None = None) -> Any:
        """Return a plain connection of the driver to one server, with autocommit on.

        Args:
            name: which server; None is the master. A slave refuses writes.
        """

    def start(self, name: str | None = None) -> None:
        """Start the pair, or start one of its servers again after :meth:`kill`.

        A server keeps its address and its data. Replication resumes, unless it was stopped with
        :meth:`stop_slave`. A server that runs already is not changed.

        Args:
            name: the server; None is the whole pair.

        Raises:
            PairError: a server did not start.
        """
        with self._exclusively():
            if name is None:
                self._start_all()
            elif not self._is_up(self._known(name)):
                self._start_server(name)
                if name != self.master_name:
                    self._set_lag(name)

    def close(self) -> None:
        """Stop all servers and remove everything they left. It is no error to close a pair twice.

        In a process that was forked from the one that started the pair, this method does nothing.
        """
        if os.getpid() != self._owner:
            return
        with self._exclusively():
            self._started = False
            self._stopped.clear()
            self.master_name = MASTER
            self._remove()

    def kill(self, name: str) -> None:
        """Kill a server without a shutdown, as in a power cut. :meth:`start` starts it again."""
        with self._exclusively():
            if self._is_up(self._known(name)):
                self._kill_server(name)

    def stop_slave(self, name: str = "slave") -> None:
        """Stop replication on a slave. The server continues to serve the data that it has."""
        with self._exclusively():
            self._stopped.add(self._known_slave(name))
            if self._is_up(name):
                self._stop_replication(name)

    def start_slave(self, name: str = "slave") -> None:
        """Start replication on a slave again."""
        with self._exclusively():
            self._stopped.discard(self._known_slave(name))
            if self._is_up(name):
                self._start_replication(name)

    @property
    def lag(self) -> float:
        """The lag of the slaves in seconds. It can be set at any time.

        A transaction is visible on a slave only after this time since its commit. A new lag also applies to
        transactions that are waiting already. If it is 0, the slaves apply them at once.

        Raises:
            ConfigurationError: the new value is not a lag that this database supports.
        """
        return self._lag

    @lag.setter
    def lag(self, seconds: float) -> None:
        self._check_lag(seconds)
        with self._exclusively():
            if seconds == self._lag:
                return
            self._lag = seconds
            if self._started:
                for name in self.slave_names:
                    if self._is_up(name):
                        self._set_lag(name)

    def wait_caught_up(self, timeout: float = 10) -> None:
        """Wait until each slave has everything that the master has committed by now.

        Slaves that are killed, or stopped with :meth:`stop_slave`, are not waited for.

        Args:
            timeout: seconds that this may take in addition to the lag.

        Raises:
            NotCaughtUpError: a slave was late, or its replication has failed. It is a TimeoutError.
            PairError: the master is down, so its position is not known.
        """
        if not self._is_up(self._known(self.master_name)):
            raise PairError(f'the master is down, so its position is unknown. Call start("{self.master_name}") first')
        with self._exclusively():
            position = self._master_position()
        deadline = time.monotonic() + self._lag + timeout
        for name in self.slave_names:
            if self._is_replicating(name):
                self._wait_for(name, position, deadline)

    def reset(self) -> None:
        """Undo what a test did to the servers. Then all are up, replicate without a lag, and have caught up.

        Each slave is connected to its master again, even if the master was killed.

        Raises:
            PairError: the servers could not be reset; close the pair and start it again.
        """
        for name in self.names:
            self.start(name)
        self.lag = 0
        for name in self.slave_names:
            self.start_slave(name)
        self._wait_restored()

    def _wait_restored(self) -> None:
        """Wait until each slave has caught up and is connected to its master, for at most 10 seconds each."""
        self.wait_caught_up()
        for name in self.slave_names:
            self._wait_connected(name, time.monotonic() + 10)

    def _start_all(self) -> None:
        """Start the pair. If that fails, remove everything."""
        if self._started:
            return
        try:
            self._create()
            self._started = True
            for name in self.names:
                self.start(name)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Let one thread at a time change the pair. Refuse changes by a process other than the one that started it."""
        if os.getpid() != self._owner:
            raise PairError("only the process that has started this pair can change it")
        with self._lock:
            yield

    def _known(self, name: str) -> str:
        """Return ``name`` if the pair is started and has a server with this name."""
        if name not in self.names:
            raise ConfigurationError(f"{name!r} is not a server of this pair; it has {', '.join(self.names)}")
        if not self._started:
            raise PairError(f"the pair is not started. Use `with {type(self).__name__}() as pair:` or call start()")
        return name

    def _known_slave(self, name: str) -> str:
        if self._known(name) == self.master_name:
            raise ConfigurationError(f"The master is not a slave. The slaves are {', '.join(self.slave_names)}")
        return name

    def _is_replicating(self, name: str) -> bool:
        return name not in self._stopped and self._is_up(name)

    def _check_lag(self, seconds: float) -> None:
        """Raise ConfigurationError if ``seconds`` is not a lag that the database of this pair supports."""
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= 86400:
            raise ConfigurationError(f"lag={seconds!r}: a lag is a number of seconds from 0 to 86400")
