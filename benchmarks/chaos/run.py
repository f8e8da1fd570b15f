"""A chaos run: the servers, the application as a process, its clients, the faults, and the verdict."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from shared.process import command, environment

from chaos.client import Client
from chaos.faults import FAULTS, MASTER, SLAVES, WEIGHTS, Fault, Field
from chaos.ledger import Ledger, Window
from chaos.server import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shared.product import Product

READ_TIMEOUT: Final = 2
COOKIE_MAX_AGE: Final = 3
DOWNTIME: Final = 1.0
MAX_LAG: Final = 5
POOL_SIZE: Final = 5

CLIENTS: Final = 8

SETTLED: Final = DOWNTIME + 5
"""Seconds after the last fault, until all servers must be in use."""

READS: Final = 2000
"""So many reads are spread over the servers in the end. With shares of 1/3 and 2/3, 5 % are 4.7 standard deviations."""

SHARE: Final = 0.05

MORE_MEMORY: Final = 1.1


@dataclass
class Figures:
    """The result of a run.

    Attributes:
        rows: for the table: a name, and a figure.
        faults: what must not happen; empty if there is nothing.
    """

    rows: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Usage:
    """The resources of the application's process."""

    memory: int
    files: int
    connections: int


def usage(process: subprocess.Popen[str], field: Field) -> Usage:
    """Look at the application's process, and at the servers."""
    folder = Path("/proc", str(process.pid))
    status = (folder / "status").read_text().splitlines()
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return Usage(memory, len(list((folder / "fd").iterdir())), field.connections())


@contextmanager
def application(side: str, driver: str, field: Field, log: IO[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the application; yield its process and its port."""
    timeouts = {"connect_timeout": field.product.connect_timeout, "read_timeout": READ_TIMEOUT}
    settings = {
        "driver": driver,
        "master": field.parameters(MASTER, **timeouts),
        "slaves": [field.parameters(address, weight=WEIGHTS[address], **timeouts) for address in SLAVES],
        "database": {"downtime": DOWNTIME, "max_lag": MAX_LAG, "pool_size": POOL_SIZE},
        "request": {"debug_header": True, "cookie_max_age": COOKIE_MAX_AGE},
    }
    process = subprocess.Popen(
        command("chaos.server", side, json.dumps(settings)),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield process, int(process.stdout.readline())
            process.stdin.close()
            process.wait(10)
        finally:
            process.kill()


class Run:
    """One run.

    Args:
        side: ``connect``, ``django`` or ``flask``.
        driver: of `replswitch.connect`.
        product: the product of the servers.
        seconds: for how long there are faults; each kind comes once at least, however long that takes.
        seed: which faults come when.
        hold: seconds that a fault lasts.
        pause: seconds that a client waits between an answer and its next request.
        faults: which there are.
        tell: gets lines about the progress.
    """

    def __init__(
        self,
        side: str,
        driver: str,
        product: Product,
        *,
        seconds: float,
        seed: int,
        hold: float,
        pause: float = 0.0,
        faults: Sequence[Fault] = FAULTS,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._side = side
        self._driver = driver
        self._product = product
        # The time-out of an answer, then the time-out of a new connection, and one second more.
        self._limit = product.connect_timeout + READ_TIMEOUT + 1.0
        self._seconds = seconds
        self._seed = seed
        self._hold = hold
        self._pause = pause
        self._faults = faults
        self._tell = tell
        self._dice = random.Random(seed)
        self.figures = Figures()

    def go(self, log: IO[str]) -> Figures:
        """Do it.

        Args:
            log: where the application logs to.
        """
        with Field(self._product) as field, application(self._side, self._driver, field, log) as (process, port):
            ledger = Ledger(self._limit)
            clients = [
                Client(
                    number,
                    port,
                    ledger,
                    seed=self._seed,
                    doubtful_for=COOKIE_MAX_AGE + 1,
                    slaves=field,
                    pause=self._pause,
                )
                for number in range(CLIENTS)
            ]
            try:
                self._run(field, process, ledger, clients)
            finally:
                _end(clients)
        return self.figures

    def _run(self, field: Field, process: subprocess.Popen[str], ledger: Ledger, clients: list[Client]) -> None:
        for client in clients:
            client.start()
        time.sleep(self._hold)
        _rest(clients)
        before = usage(process, field)
        _go_on(clients)

        began = time.monotonic()
        self._break(field, ledger, began)
        if time.monotonic() - began < self._seconds:
            # The memory of a process grows until each kind of fault has come once. Growth after that is a leak.
            _rest(clients)
            before = usage(process, field)
            _go_on(clients)
        while time.monotonic() - began < self._seconds:
            self._break(field, ledger, began)
        took = time.monotonic() - began
        time.sleep(SETTLED)
        shares = self._shares(field, clients)
        _rest(clients)
        after = usage(process, field)
        _end(clients)
        self._tell("looking at what was written")
        field.pair.reset()
        wrong = [*ledger.faults, *self._compare(field, ledger)]
        self._report(ledger, took, shares, before, after, wrong)

    def _break(self, field: Field, ledger: Ledger, began: float) -> None:
        """Let each kind of fault come once; the first time all of them, later only until the time is over."""
        deck = list(self._faults)
        self._dice.shuffle(deck)
        for fault in deck:
            self._tell(f"{time.monotonic() - ledger.began:6.1f} s {fault.name}")
            window = Window(fault.name, fault.on_master, time.monotonic(), grace=fault.grace, slows=fault.slows)
            ledger.windows.append(window)
            with fault.act(field, self._dice):
                time.sleep(max(self._hold * fault.lasts, fault.at_least))
            window.ended = time.monotonic()
            time.sleep(self._hold * self._dice.uniform(0.3, 1))
            if time.monotonic() - began >= self._seconds and len(ledger.windows) >= len(self._faults):
                return

    def _shares(self, field: Field, clients: list[Client]) -> dict[str, float]:
        """Let all clients read without a marker, and return the share of each server."""
        self._tell("reading from all slaves")
        for client in clients:
            client.reads_only.set()
        time.sleep(0.5)  # for the requests that are on their way
        for client in clients:
            client.servers.clear()
        until = time.monotonic() + 60
        while sum(client.servers.total() for client in clients) < READS and time.monotonic() < until:
            time.sleep(0.1)
        counted: Counter[str] = sum((client.servers.copy() for client in clients), Counter())
        total = counted.total()
        ports = {f":{proxy.port};": address for address, proxy in field.proxies.items()}
        shares = dict.fromkeys(field.proxies, 0.0)
        for told, count in counted.items():
            for port, address in ports.items():
                if port in told:
                    shares[address] += count / total
        return shares

    def _compare(self, field: Field, ledger: Ledger) -> Iterator[str]:
        found = field.rows(field.pair.master_name)
        yield from ledger.compare(found)
        for name in field.pair.slave_names:
            if field.rows(name) != found:
                yield f"{name} has other rows than the master"

    def _report(
        self, ledger: Ledger, took: float, shares: dict[str, float], before: Usage, after: Usage, wrong: list[str]
    ) -> None:
        rows = self.figures.rows
        rows.append(("seconds of faults", f"{took:.0f}"))
        for name, count in sorted(Counter(window.name for window in ledger.windows).items()):
            rows.append((f"  {name}", str(count)))
        rows += [(name, str(count)) for name, count in sorted(ledger.counts.items())]
        rows.append((f"slowest request, s (limit {self._limit:g})", f"{ledger.slowest:.2f}"))
        weights = dict.fromkeys(SLAVES, 1) if self._side == "flask" else WEIGHTS  # Flask-SQLAlchemy's have none
        for address, weight in weights.items():
            wanted = weight / sum(weights.values())
            rows.append((f"share of {address} (by weight {wanted:.3f})", f"{shares[address]:.3f}"))
            if abs(shares[address] - wanted) > SHARE:
                wrong.append(f"{address} has {shares[address]:.3f} of the reads, not {wanted:.3f}")
        for name, first, last in (
            ("memory, KB", before.memory, after.memory),
            ("open files", before.files, after.files),
            ("connections to the servers", before.connections, after.connections),
        ):
            rows.append((f"{name}, before and after", f"{first} {last}"))
        if after.memory > before.memory * MORE_MEMORY:
            wrong.append(f"memory has grown from {before.memory} to {after.memory} KB")
        # A pool for each server, and one more for reads on the master; or in each thread one for each of these.
        most = POOL_SIZE * (2 + len(SLAVES)) if self._side != "django" else THREADS * (2 + len(SLAVES))
        if after.connections > most:
            wrong.append(f"{after.connections} connections are open, {most} may be")
        if after.files - before.files > max(after.connections - before.connections, 0) + CLIENTS:
            wrong.append(f"{after.files} files are open, {before.files} were")
        self.figures.faults = wrong


def _rest(clients: list[Client]) -> None:
    for client in clients:
        client.resting.set()
    for client in clients:
        client.rests.wait(60)
    time.sleep(0.2)


def _go_on(clients: list[Client]) -> None:
    for client in clients:
        client.resting.clear()


def _end(clients: list[Client]) -> None:
    for client in clients:
        client.over.set()
    for client in clients:
        if client.ident is not None:
            client.join()
