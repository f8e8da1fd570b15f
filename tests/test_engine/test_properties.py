"""Properties that always hold: two threads, one to three slaves, faults, failovers, simulated clock.

No server is used while it rests, no write runs twice, no read ends at a server that lacks what must be seen, and every
sequence of faults ends (F1, F2, F3, S5, S6, S8). The servers are simulated, with what they would do at worst: a
statement that fails may have run, and what has run was committed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.test_engine.simulated import NOT_RUN, RecordingSwitch, SimulatedDriver, SimulatedError

from replswitch import MASTER, SLAVE, NoServerError, SlaveWriteError
from replswitch.drivers import GONE, Fault, WriteTracker, Written
from replswitch.engine.attempt import Attempt
from replswitch.engine.block import Block
from replswitch.engine.database import Database
from replswitch.engine.health import Health
from replswitch.engine.options import DatabaseOptions
from replswitch.engine.port import Port
from replswitch.engine.route import Route
from replswitch.engine.servers import Link, Server, Servers
from replswitch.positions import Position
from replswitch.scope import Scope
from replswitch.state import instruction, set_stack

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

DOWNTIME = 10


@dataclass(frozen=True, slots=True)
class Writes(Position):
    """A position: how many writes there are, and which server has made the latest."""

    engine: ClassVar[str] = "writes"
    number: int
    by: str

    @classmethod
    def parse(cls, text: str) -> Self:
        raise NotImplementedError

    def merge(self, other: Self) -> Self:
        return max(self, other, key=lambda position: position.number)

    def includes(self, other: Position) -> bool:
        return isinstance(other, Writes) and self.number >= other.number

    def is_written_by(self, identity: Hashable) -> bool:
        return identity == self.by

    def __str__(self) -> str:
        return f"{self.number} by {self.by}"


@dataclass
class World:
    """All servers.

    Attributes:
        up: which of them accept connections.
        has: how many writes each has.
        faults: what becomes of the statements, one after the other; None: all goes well.
        master: to which of them the master's name leads.
        read_only: those that refuse writes of anybody: former masters.
        committed: the writes that were carried out, each by its number.
        now: the time.
    """

    up: dict[str, bool]
    has: dict[str, int]
    faults: Iterator[Fault | None]
    master: str = "first"
    read_only: set[str] = field(default_factory=set)
    committed: list[int] = field(default_factory=list)
    now: float = 0


class Raw(WriteTracker):
    """A connection of one worker.

    Attributes:
        snapshot: how many writes its transaction shows: those that the server had when the transaction joined.
        had_to_see: how many writes its request had to see at that time.
    """

    def __init__(self, worker: Worker, server: str, *, read_only: bool, must_ask: bool) -> None:
        self.worker, self.world = worker, worker.world
        self.server, self.read_only, self.must_ask = server, read_only, must_ask
        self.identity = None if read_only else server
        self.is_dead = self.in_transaction = False
        self.written: list[int] = []  # not committed yet
        self.status: Position | Written = Written.NO
        self.snapshot = self.had_to_see = 0

    @property
    def is_alive(self) -> bool:
        return self.world.up[self.server] and not self.is_dead

    def run(self, statement: str, numbers: Sequence[int]) -> None:
        """Read, or write one number after the other."""
        assert not self.is_dead, "a connection is used that is lost"
        for number in numbers:
            fault = next(self.world.faults)
            if not self.world.up[self.server]:
                fault = Fault.LOST
            elif fault not in NOT_RUN and statement != "read":
                if self.read_only or self.server in self.world.read_only:
                    fault = Fault.REFUSED if self.read_only else Fault.READ_ONLY
                else:
                    self.written.append(number)
                    if not self.in_transaction:
                        self.commit()
            if fault is not None:
                self.is_dead = fault in GONE
                if self.is_dead or fault in {Fault.DEADLOCK, Fault.ROLLED_BACK}:
                    self.rollback()
                raise SimulatedError(fault)

    def begin(self) -> None:
        if not self.is_alive:
            self.is_dead = True
            raise SimulatedError(Fault.LOST)
        self.in_transaction, self.snapshot = True, self.world.has[self.server]
        self.had_to_see = self.worker.request.must_see

    def commit(self) -> None:
        if not self.is_alive or (self.written and self.server in self.world.read_only):
            self.rollback()
            raise SimulatedError(Fault.READ_ONLY if self.is_alive else Fault.LOST)
        if self.written:
            self.world.committed += self.written
            self.world.has[self.server] += len(self.written)
            self.worker.request.must_see = self.world.has[self.server]
            self.worker.request.has_written = True
            self.status = Written.ASK if self.must_ask else Writes(self.world.has[self.server], self.server)
        self.rollback()

    def rollback(self) -> None:
        self.written, self.in_transaction = [], False

    def pop_write_status(self) -> Position | Written:
        status, self.status = self.status, Written.NO
        return status

    def ask(self, since: Position | None) -> Position | Written:
        if not self.is_alive:
            raise SimulatedError(Fault.LOST)
        self.last_known_position = Writes(self.world.has[self.server], self.server)
        return Written.NO if self.last_known_position == since else self.last_known_position


class WorldDriver(SimulatedDriver):
    """Answers for the connections of the world."""

    def __init__(self, *, must_ask: bool) -> None:
        super().__init__()
        self.must_ask = must_ask

    def in_transaction(self, raw: Raw) -> bool:
        return raw.in_transaction

    def fetch_position(self, raw: Raw) -> tuple[Hashable, Position | None]:
        if not raw.is_alive:
            raise SimulatedError(Fault.LOST)
        return raw.server, Writes(raw.world.has[raw.server], raw.server)


class Rests(Health):
    """Knows which server was given to one reader although it rests."""

    lent: Server | None = None

    def _due(self, servers: Sequence[Server]) -> Server | None:
        self.lent = super()._due(servers)
        return self.lent


@dataclass
class Request:
    """The true state of a request, independent of its scope.

    Attributes:
        scope: its scope.
        must_see: how many writes it must see.
        has_written: it has committed something itself.
    """

    scope: Scope
    must_see: int
    has_written: bool = False

    def check_marker(self) -> None:
        """M1: what was committed is in the marker, by its position or by time."""
        self.scope.settle()
        wrote = self.scope.wrote
        if self.has_written and (wrote is None or wrote.written_at is None):
            assert wrote is not None, "a write is not recorded"
            assert wrote.positions["shop"].includes(Writes(self.must_see, "")), "a write is not recorded"


class KnownRoute(Route):
    """Shows that any server may serve, because the master is gone."""

    is_without_master = False

    def spare(self, *args: Any, **options: Any) -> Link | None:
        self.is_without_master = True
        try:
            return super().spare(*args, **options)
        finally:
            self.is_without_master = False


class Worker(Port):
    """A thread that works for one request: its links, its route, its state. Two may work for the same request."""

    def __init__(self, database: Database, world: World, driver: WorldDriver, state: Any, request: Request) -> None:
        self.driver, self.world = driver, world
        self.links: dict[Server, Link] = {}
        self.route = KnownRoute(database, self)
        self.request = request
        self.frame = instruction(state, request.scope)
        self.health: Any = database.rotation._health
        self.master_read_only = database.servers.master_read_only

    def open(self, server: Server) -> Link:
        link, block, world = self.links.get(server), self.route.block, self.world
        if link is not None and ((block is not None and link in block) or link.raw.is_alive):
            return link
        name = world.master if server.name == "master" else server.name
        rests = self.health.resting.get(server, 0) > world.now and server not in {
            self.health.lent,
            self.master_read_only,
        }
        # The scope's own slave is another matter, and so is the master; without a master all are tried.
        if (
            rests
            and self.request.scope.slaves.get(self.route.database.key) is not server
            and not self.route.is_without_master
        ):
            raise AssertionError("a server is used while it rests")
        if not world.up[name]:
            raise SimulatedError(Fault.UNSENT)
        raw = Raw(self, name, read_only=server.state == SLAVE, must_ask=self.driver.must_ask)
        link = self.links[server] = Link(server, raw, self.driver)
        return link

    def drop(self, server: Server, link: Link | None = None) -> None:
        held, block = self.links.get(server), self.route.block
        if held is not None and (held is link or (link is None and (block is None or held not in block))):
            held.raw.is_dead = True
            del self.links[server]

    def join(self, link: Link) -> None:
        link.raw.begin()

    def leave(self, link: Link) -> None:
        link.raw.rollback()

    @contextmanager
    def borrowed(self, server: Server) -> Iterator[Any]:
        yield self.open(server).raw

    def has_read(self, attempt: Attempt | None) -> bool:
        return self.route.block is not None and self.route.block.has_read

    # The steps of the thread

    def run(self, statement: str, numbers: Sequence[int]) -> None:
        """Run a statement as a binding does, and check where it has run."""
        route, attempt = self.route, Attempt(single=len(numbers) == 1)
        link = route.for_statement()
        for _ in range(40):
            has, must_see = self.world.has[link.raw.server], self.request.must_see
            if link.raw.in_transaction:
                has = link.raw.snapshot
                if link.server.state == MASTER:  # it serves the whole transaction (S5)
                    must_see = link.raw.had_to_see
            try:
                link.raw.run(statement, numbers)
            except SimulatedError as error:
                following = route.failed(attempt, link, error)
                if following is None:
                    raise
                link = following
            else:
                route.succeeded(link, has_rows=statement == "read")
                assert statement == "read" or link.server.state == MASTER
                assert statement != "read" or has >= must_see, "a read ended at a server that lacks what must be seen"
                return
        raise AssertionError("a sequence of faults without an end")

    def do(self, step: str, number: int) -> None:
        set_stack(self.frame)
        try:
            if step == "begin" and self.route.block is None:
                self.route.begin(Block())
            elif step in {"commit", "roll_back"} and (block := self.route.end()) is not None:
                getattr(self.route, step)(block)
            elif step in {"read", "write"}:
                self.run(step, [number * 3])
            elif step == "write_many":
                self.run(step, range(number * 3, number * 3 + 3))
        except (NoServerError, SlaveWriteError, SimulatedError):
            if (block := self.route.end()) is not None:
                self.route.roll_back(block)
        finally:
            set_stack(None)


NAMES = ("first", "slave0", "slave1", "slave2")
FAULTS = st.sampled_from([fault for fault in Fault if fault is not Fault.SLOW])  # which the probe finds out

WHAT = ["read", "read", "read", "write", "write_many", "begin", "commit", "roll_back"]
DOINGS = st.tuples(st.integers(0, 1), st.sampled_from(WHAT))
EVENTS = st.one_of(
    st.tuples(st.sampled_from(["up", "down", "replicate"]), st.sampled_from(NAMES)),
    st.just(("promote", "slave0")),
    st.tuples(st.just("time"), st.sampled_from([1, DOWNTIME + 1])),
)


def happen(world: World, event: str, subject: Any) -> None:
    if event == "time":
        world.now += subject
    elif event == "replicate":
        world.has[subject] = max(world.has[subject], world.has[world.master])
    elif event == "promote":  # only one that has everything
        if world.master != subject and world.up[subject] and world.has[subject] == world.has[world.master]:
            world.read_only.add(world.master)
            world.master = subject
    else:
        world.up[subject] = event == "up"


def new_request(must_see: int) -> Request:
    request = Request(Scope(), must_see)
    if must_see:
        request.scope.must_see = {"shop": Writes(must_see, "first")}
    return request


def new_database(world: World, slaves: int) -> Database:
    found = tuple(Server(f"slave{number}", SLAVE) for number in range(slaves))
    servers = Servers(Server("master", MASTER), found, Server("master", SLAVE), has_slaves=True)
    database = Database(RecordingSwitch(), "shop", servers, DatabaseOptions(downtime=DOWNTIME))
    health, rotation = Rests(DOWNTIME, lambda: world.now), database.rotation
    rotation._health, rotation.resting = health, health.resting
    return database


FAILOVER = ("promote", "slave0")


Test = TypeVar("Test", bound=Callable[..., None])


def shared(steps: list[Any]) -> Callable[[Test], Test]:
    """An example that chance seldom finds: two threads of one request, a slave that is caught up, no other faults."""

    def add(test: Test) -> Test:
        for must_ask in (False, True):
            test = example(
                slaves=1,
                has=[5, 5, 5],
                states=(SLAVE, MASTER),
                must_see=0,
                must_ask=must_ask,
                is_one_request=True,
                faults=[],
                steps=steps,
            )(test)
        return test

    return add


@pytest.mark.timeout(600)  # a thousand programs, and a machine may be busy
@settings(max_examples=1000)
@given(
    slaves=st.integers(1, 3),
    has=st.lists(st.integers(3, 5), min_size=3, max_size=3),
    states=st.tuples(st.sampled_from([SLAVE, SLAVE, MASTER]), st.sampled_from([SLAVE, MASTER])),
    must_see=st.sampled_from([0, 4, 5]),
    must_ask=st.booleans(),
    is_one_request=st.booleans(),
    faults=st.one_of(st.just([]), st.lists(st.one_of(st.none(), FAULTS), max_size=12)),
    steps=st.lists(st.one_of(DOINGS, DOINGS, DOINGS, EVENTS), min_size=15, max_size=30),
)
@shared([(0, "begin"), (0, "read"), (1, "write"), (0, "read")])  # a snapshot lacks what was written meanwhile
@shared([(0, "read"), (1, "write"), (0, "read")])
@shared([(0, "read"), ("down", "slave0"), (1, "write"), ("up", "slave0"), ("time", DOWNTIME + 1), (0, "read")])
@shared([("replicate", "slave0"), (1, "read"), (0, "read"), FAILOVER, (0, "write"), (1, "read")])  # a former master
@example(  # the master is lost before it has said the position of a write, and the slave lacks the write
    slaves=1,
    has=[3, 3, 3],
    states=(SLAVE, SLAVE),
    must_see=0,
    must_ask=True,
    is_one_request=False,
    faults=[Fault.DOWN],
    steps=[(0, "read"), (0, "write"), ("down", "first"), (0, "read")],
)
@example(  # the position of a write on the new master is unknown, and another thread still has a link to the former one
    slaves=1,
    has=[5, 3, 3],
    states=(MASTER, SLAVE),
    must_see=0,
    must_ask=False,
    is_one_request=True,
    faults=[None, None, Fault.LOST],
    steps=[(0, "read"), FAILOVER, (1, "write"), (0, "read")],
)
# A transaction on a former master goes on there, and the next one does not.
@shared([(1, "begin"), (1, "read"), FAILOVER, (0, "write"), (1, "read"), (1, "roll_back"), (1, "begin"), (1, "read")])
def test_no_sequence_of_faults_breaks_the_rules(
    slaves: int,
    has: list[int],
    states: Any,
    must_see: int,
    must_ask: bool,
    is_one_request: bool,
    faults: list[Any],
    steps: list[Any],
) -> None:
    world = World(
        dict.fromkeys(NAMES, True),
        {"first": 5, **dict(zip(NAMES[1:], has, strict=True))},
        itertools.chain(faults, itertools.repeat(None)),
    )
    if must_ask and is_one_request:
        # What another thread has written is asked for before reads from slaves, and not before reads on the master: one
        # of its links to a former master is not found out.
        steps = [step for step in steps if step != FAILOVER]
    database, driver = new_database(world, slaves), WorldDriver(must_ask=must_ask)
    first = new_request(must_see)
    requests = (first, first if is_one_request else new_request(must_see))
    workers = [Worker(database, world, driver, state, request) for state, request in zip(states, requests, strict=True)]
    for number, (what, subject) in enumerate(steps):
        if what in (0, 1):
            workers[what].do(subject, number)
        else:
            happen(world, what, subject)
    for worker in workers:
        worker.do("roll_back", 0)
        worker.request.check_marker()
    assert len(world.committed) == len(set(world.committed)), "a write ran twice"


@settings(max_examples=500)
@given(
    slaves=st.integers(1, 3),
    state=st.sampled_from([MASTER, SLAVE]),
    must_see=st.sampled_from([0, 5, 6]),
    must_ask=st.booleans(),
    faults=st.lists(FAULTS, min_size=1, max_size=4),
    statement=st.sampled_from(["read", "write", "write_many"]),
    in_transaction=st.booleans(),
)
def test_a_statement_gives_up_when_every_server_keeps_failing(
    slaves: int, state: Any, must_see: int, must_ask: bool, faults: list[Any], statement: str, in_transaction: bool
) -> None:
    """Every server is there, and every statement fails, in turn with the same few faults."""
    world = World(dict.fromkeys(NAMES, True), dict.fromkeys(NAMES, 5), itertools.cycle(faults))
    world.has["first"] = 6
    driver = WorldDriver(must_ask=must_ask)
    worker = Worker(new_database(world, slaves), world, driver, state, new_request(must_see))
    if in_transaction:
        worker.do("begin", 0)
    worker.do(statement, 1)
    assert len(world.committed) == len(set(world.committed)), "a write ran twice"


@pytest.mark.parametrize("slaves", [1, 2, 3])
def test_f2_a_slave_that_is_down_is_tried_once_in_its_downtime(slaves: int) -> None:
    """By however many readers."""
    world = World(dict.fromkeys(NAMES, True), dict.fromkeys(NAMES, 5), itertools.repeat(None))
    world.up["slave0"] = False
    database, driver, tried = new_database(world, slaves), WorldDriver(must_ask=False), list[float]()

    class Reader(Worker):
        def open(self, server: Server) -> Link:
            if server.name == "slave0":
                tried.append(self.world.now)
            return super().open(server)

    for world.now in range(4 * DOWNTIME):
        for _ in range(5):
            Reader(database, world, driver, SLAVE, new_request(0)).do("read", 0)
    assert len(tried) > 1
    assert all(later - earlier >= DOWNTIME for earlier, later in itertools.pairwise(tried))


def test_s5_the_master_serves_a_transaction_once_it_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from when it was chosen: where the transaction cannot begin there, a slave may serve that has caught up."""
    world = World(dict.fromkeys(NAMES, True), {"first": 5, "slave0": 3}, itertools.repeat(None))
    worker = Worker(new_database(world, 1), world, WorldDriver(must_ask=False), SLAVE, new_request(5))

    def refuse(link: Link) -> None:
        raise SimulatedError(Fault.OTHER)

    worker.do("begin", 0)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "join", refuse)
        worker.do("read", 1)
    assert not worker.request.scope.forced_master
    worker.do("begin", 2)
    worker.do("read", 3)
    assert list(worker.request.scope.forced_master.values()) == ["marker"]


def test_s5_a_transaction_stays_on_the_old_master_after_a_failover() -> None:
    """Although another thread of the request has written on the new master; the next transaction is there."""
    world = World(dict.fromkeys(NAMES, True), {"first": 5, "slave0": 5}, itertools.repeat(None))
    database, driver, request = new_database(world, 1), WorldDriver(must_ask=False), new_request(0)
    worker, other = (Worker(database, world, driver, MASTER, request) for _ in range(2))
    read_at = []
    for step in ("begin", "read", "read", "roll_back", "begin", "read"):
        worker.do(step, 0)
        if step == "read":
            assert worker.route.link is not None
            read_at.append(worker.route.link.raw.server)
            if len(read_at) == 1:
                happen(world, *FAILOVER)
                other.do("write", 1)
    assert world.committed == [3]
    assert read_at == ["first", "first", "slave0"]
