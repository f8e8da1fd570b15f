"""The faults of a chaos run: of the servers, and of the network to them."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from chaos.ledger import PROMOTION
from chaos.pages import INDEX, TABLE
from replswitch.testing import Proxy

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from shared.product import Product

MASTER: Final = "master"
SLAVES: Final = ("slave A", "slave B")
WEIGHTS: Final = {"slave A": 1, "slave B": 2}

DELAY: Final = 1.0
"""Seconds by which a slow network delays each answer."""

ROUND_TRIPS: Final = 6
"""How many answers a request waits for at most: a connection that is opened, or a few statements."""


class Field:
    """A master and two slaves, each behind a proxy with the address for the application.

    An address is a name: ``master``, ``slave A``, ``slave B``; after a promotion it leads to another server.

    Args:
        product: the product of the servers.

    Attributes:
        pair: the servers.
        proxies: by the address's name.
        out: the addresses that have a fault.
    """

    def __init__(self, product: Product) -> None:
        self.product = product
        self.pair: Any = product.pair(slaves=2)
        self.proxies: dict[str, Proxy] = {}
        self.out: set[str] = set()
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(self.pair)
            for address in (MASTER, *SLAVES):
                self.proxies[address] = opened.enter_context(Proxy(self._port(address)))
            with closing(self.pair.connect()) as connection, connection.cursor() as cursor:
                cursor.execute(TABLE.format(key=self.product.key))
                cursor.execute(INDEX)
            self.pair.wait_caught_up()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def server(self, address: str) -> str:
        """Return the name of the server that an address leads to."""
        slaves = self.pair.slave_names
        return str(self.pair.master_name if address == MASTER else slaves[SLAVES.index(address)])

    def _port(self, address: str) -> int:
        slaves = dict(zip(self.pair.slave_names, self.pair.slaves, strict=True))
        parameters = slaves.get(self.server(address), self.pair.master)
        return int(parameters["port"])

    def lead(self) -> None:
        """Let the addresses lead to the servers with their roles."""
        for address, proxy in self.proxies.items():
            proxy.target = self._port(address)

    def parameters(self, address: str, **more: Any) -> dict[str, Any]:
        """Return the connection parameters for an application."""
        return {**self.pair.master, "port": self.proxies[address].port, **more}

    def connections(self) -> int:
        """Return how many connections of the application the servers have."""
        return sum(int(self._ask(name, self.product.connections)) for name in self.pair.names)

    def slave_has(self, client: int, number: int) -> bool:
        """Say whether a slave that has no fault has a client's note."""
        sql = f"SELECT COUNT(*) FROM {self.product.schema}note WHERE client = {client} AND number = {number}"
        return any(bool(self._ask(self.server(address), sql)) for address in SLAVES if address not in self.out)

    def received(self) -> int | None:
        """Return up to which place in the master's log the slaves without a fault have it; None without such places."""
        asked = self.product.received
        places = [int(self._ask(self.server(each), asked)) for each in SLAVES if asked and each not in self.out]
        return max(places, default=None)

    def _ask(self, name: str, sql: str) -> Any:
        with closing(self.pair.admin(name)) as admin, admin.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def rows(self, name: str) -> dict[str, int]:
        """Return how many rows each token has on a server."""
        with closing(self.pair.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT token, COUNT(*) FROM note GROUP BY token")
            return dict(cursor.fetchall())


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: a description.
        act: does it, and undoes it.
        on_master: whether writes may fail meanwhile.
        lasts: how much longer than others it lasts.
        at_least: seconds that it lasts.
        grace: seconds for which it may be felt when it is undone.
        slows: seconds by which requests may take longer.
    """

    name: str
    act: Callable[[Field, random.Random], AbstractContextManager[None]]
    on_master: bool = False
    lasts: float = 1
    at_least: float = 0
    grace: float = 0.5
    slows: float = 0


@contextmanager
def _out(field: Field, *addresses: str) -> Iterator[None]:
    field.out.update(addresses)
    try:
        yield
    finally:
        field.out.difference_update(addresses)


@contextmanager
def _killed(field: Field, *addresses: str) -> Iterator[None]:
    names = [field.server(address) for address in addresses]
    with _out(field, *addresses):
        threads = [threading.Thread(target=field.pair.kill, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield
        for name in names:
            field.pair.start(name)


def _kill_a_slave(field: Field, dice: random.Random) -> AbstractContextManager[None]:
    return _killed(field, dice.choice(SLAVES))


@contextmanager
def _restart_a_slave(field: Field, dice: random.Random) -> Iterator[None]:
    with _killed(field, dice.choice(SLAVES)):
        pass
    yield


@contextmanager
def _refuse(field: Field, dice: random.Random) -> Iterator[None]:
    address = dice.choice(SLAVES)
    with _out(field, address):
        field.proxies[address].refuse()
        yield
        field.proxies[address].restore()


def _kill_both(field: Field, dice: random.Random) -> AbstractContextManager[None]:
    return _killed(field, *SLAVES)


def _kill_master(field: Field, dice: random.Random) -> AbstractContextManager[None]:
    return _killed(field, MASTER)


@contextmanager
def _stop_replication(field: Field, dice: random.Random) -> Iterator[None]:
    name = field.server(dice.choice(SLAVES))
    field.pair.stop_slave(name)
    yield
    field.pair.start_slave(name)


@contextmanager
def _lag(field: Field, dice: random.Random) -> Iterator[None]:
    field.pair.lag = 30
    yield
    field.pair.lag = 0


@contextmanager
def _drop(field: Field, dice: random.Random, addresses: tuple[str, ...] = SLAVES) -> Iterator[None]:
    address = dice.choice(addresses)
    with _out(field, address):
        field.proxies[address].drop()
        yield
        field.proxies[address].restore()


@contextmanager
def _delay(field: Field, dice: random.Random, addresses: tuple[str, ...] = SLAVES) -> Iterator[None]:
    address = dice.choice(addresses)
    with _out(field, address):
        field.proxies[address].delay(DELAY)
        yield
        field.proxies[address].restore()


@contextmanager
def _cut(field: Field, dice: random.Random, addresses: tuple[str, ...] = SLAVES) -> Iterator[None]:
    address = dice.choice(addresses)
    with _out(field, address):
        field.proxies[address].cut_after(dice.choice((20, 300, 3000, 15000)))
        yield
        field.proxies[address].restore()


@contextmanager
def _promote(field: Field, dice: random.Random) -> Iterator[None]:
    field.pair.promote(field.server(dice.choice(SLAVES)))
    field.lead()
    yield


def _on_master(
    act: Callable[[Field, random.Random, tuple[str, ...]], AbstractContextManager[None]],
) -> Callable[[Field, random.Random], AbstractContextManager[None]]:
    return lambda field, dice: act(field, dice, (MASTER,))


UNTIL_NOTICED: Final = 6.0
"""Seconds after which nobody waits any more for a server whose packets are dropped: two time-outs for an answer, since
others begin to wait until the first has waited, and one for a connection. When packets pass again just while a reader
whose time is over looks whether the server is there, it is: the query was slow, then, and the error is his."""

FAULTS: Final = (
    Fault("a slave killed", _kill_a_slave),
    Fault("a slave restarted", _restart_a_slave, lasts=0.5),
    Fault("a slave refuses", _refuse),
    Fault("both slaves killed", _kill_both),
    Fault("replication stopped", _stop_replication),
    Fault("a lag of 30 s", _lag, lasts=2.5),
    Fault("packets to a slave dropped", _drop, at_least=UNTIL_NOTICED),
    Fault("a slave's answers delayed", _delay, slows=DELAY * ROUND_TRIPS),
    Fault("a slave's answers cut", _cut),
    Fault("the master killed", _kill_master, on_master=True),
    Fault("packets to the master dropped", _on_master(_drop), on_master=True, at_least=UNTIL_NOTICED),
    Fault("the master's answers delayed", _on_master(_delay), on_master=True, slows=DELAY * ROUND_TRIPS),
    Fault("the master's answers cut", _on_master(_cut), on_master=True),
    Fault(PROMOTION, _promote, on_master=True, grace=2),
)
"""Of each kind at least one, in any order."""
