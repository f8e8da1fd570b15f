"""One database as a scope knows it: which side serves it and why, what it wrote, which writes were moved.

This is what every binding that runs statements shares; how links are opened and transactions begun is its own.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from threading import get_ident
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from replswitch.drivers import Written
from replswitch.errors import NoServerError, PositionError, SlaveWriteError
from replswitch.events import tell
from replswitch.health import Choosable
from replswitch.place import application_place
from replswitch.policy import Decision
from replswitch.positions.clock import fall_back_to_clock
from replswitch.progress import LinkToSlave
from replswitch.slaves import Slaves
from replswitch.state import MASTER, SLAVE, stack

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from replswitch.drivers import Driver, Raw
    from replswitch.options import DatabaseOptions
    from replswitch.positions import Position
    from replswitch.scope import Scope
    from replswitch.slaves import Reach
    from replswitch.state import State, Switch

logger = logging.getLogger("replswitch.servers")

S = TypeVar("S", bound=Choosable)
L = TypeVar("L", bound=LinkToSlave)

#: In a count of failures by state: on the master, by a link that refuses writes, so that nothing can have been written.
READER: Final = "reader"

# The reasons why the master serves reads, which will be over when a slave has what must be seen.
_CAUGHT_UP_LATER: Final = {"marker", "own-write"}

# Few are different, and one is noted in each request.
_decision = lru_cache(maxsize=256)(Decision)


def no_master(server: str, error: BaseException) -> NoServerError:
    """Return the error for a master that cannot be reached (F3)."""
    return NoServerError(
        f"The master {server} cannot be reached: {error}. Start it, or correct its settings. Reads in slave state go "
        "on meanwhile.",
        server=server,
    )


class Doubt:
    """Statements of a scope may have written: finds out when it is called with the scope.

    It does not keep the scope, which keeps it: in a circle the link would wait for Python's collector.

    Attributes:
        is_asked: what runs from now on is another doubt's.
    """

    __slots__ = ("_database", "_driver", "_raw", "_since", "_thread", "is_asked")

    def __init__(self, database: Database, driver: Driver, raw: Raw) -> None:
        self._database = database
        self._driver = driver
        self._raw = raw
        self._since = driver.latest(raw)  # before the first of the statements
        self._thread = get_ident()
        self.is_asked = False

    def __call__(self, scope: Scope) -> None:
        """Find out, and record it in the scope."""
        self.is_asked = True
        if self._thread == get_ident():
            self._database.settle(scope, self._driver, self._raw, self._since)
        else:  # which may be in the midst of another statement
            self._database.record(scope, Written.YES)


class Disowned:
    """Stands for the doubt about statements that run in no scope: nobody will ask."""

    is_asked: Final = False


_DISOWNED: Final = Disowned()


class Database:
    """One database.

    Args:
        switch: says which side the running code wants.
        name: what the database is called in markers. The same in every process of the application, whichever server is
            the master; databases that replicate by themselves should have different ones.
        key: what it is called in scopes; the switch itself by default.
        options: how it is served.
        has_slaves: whether there are any.

    Attributes:
        slaves: chooses among them.
    """

    def __init__(
        self,
        switch: Switch,
        name: str,
        key: Hashable = None,
        *,
        options: DatabaseOptions,
        has_slaves: bool = True,
    ) -> None:
        self.switch = switch
        self.name = name
        self.key = switch if key is None else key
        self.options = options
        self.slaves = Slaves(name, self.key, options, exist=has_slaves)

    # Which side

    def side(self, *, in_master_transaction: bool) -> tuple[State, str, bool]:
        """Choose the side of a statement (S4, S5, S8).

        Args:
            in_master_transaction: a transaction is open that the master has joined.

        Returns:
            the side, the reason for it, and whether the master serves what the code wants a slave for; see
            `may_refuse_writes`.
        """
        if in_master_transaction:
            return MASTER, "transaction", False
        frame = stack()
        if frame is None:
            return MASTER, "default", False
        scope, deciding = frame.scope, self.switch.deciding_frame()
        why = scope.pins.get(self.key)
        if why is not None:
            return MASTER, why, deciding is not None and self.switch.state_by(deciding) == SLAVE
        if deciding is None:
            return MASTER, "default", False
        # Whose instruction decides: the request's own, or a use_*() in it.
        state, decision = self.switch.state_by(deciding), scope.decision
        if decision is None or not decision.final:
            if deciding is not frame:
                decision = deciding.scope.decision
            if state != deciding.state:  # something was handed on that holds by time
                return state, "marker", False
            if decision is None or deciding.switch is not None or not deciding.begins_scope:
                return state, f"use_{deciding.state}", False
        return state, decision.reason, False

    def read_on_master(self, scope: Scope, why: str) -> str:
        """Let the master serve the reads of the scope from now on, and return the reason: the first that was given."""
        scope.pin(self.key, why)
        return scope.pins[self.key]

    def may_refuse_writes(self, scope: Scope, why: str, reader: object, driver: Driver) -> bool:
        """Say whether the master serves what the code wants a slave for by links that refuse writes.

        So nobody has to ask what was written. By time no such link serves: who must see a write whose position nobody
        knows is safest where it was made, as long as he goes on reading.

        Args:
            scope: the running one.
            why: the reason why the master serves.
            reader: the master, by such links.
            driver: of the links.
        """
        if why not in _CAUGHT_UP_LATER or scope.avoids(self.key, reader) or scope.is_in_doubt:
            return False
        return self.name in scope.must_see and not driver.tells_of_writes

    def link_on_master(self, scope: Scope, reader: S, reach: Reach[S, L]) -> L:
        """Return a link to the master that refuses writes: for reads that no slave can serve.

        Args:
            scope: the running one.
            reader: the master, by such links.
            reach: opens them.

        Raises:
            NoServerError: the master cannot be reached.
        """
        try:
            return self.slaves.on_master(scope, reader, reach)
        except reach.driver.module.Error as error:
            if not reach.driver.unreachable(error):
                raise
            raise no_master(reader.name, error) from error

    # The master's faults

    def without_master(self, scope: Scope, slaves: Sequence[S], reader: S) -> Sequence[S]:
        """Return the servers that may run a statement which the master should, and cannot; by links that refuse writes.

        Where the code wants a slave, so that it is a read, most likely. Any server that has what must be seen will do;
        where nobody can say that, the one that has the master's name by now.

        Args:
            scope: the running one.
            slaves: the slaves.
            reader: the master, by links that refuse writes.
        """
        wants_slave = self.switch.state == SLAVE or (scope.master_only and scope.is_safe)
        if not wants_slave or scope.pinned(self.key) == "moved-write":
            return ()
        if scope.master_only or (scope.wrote is not None and scope.wrote.written_at is not None):
            return (reader,)
        return slaves if reader in slaves else (*slaves, reader)

    def may_run_again(
        self, driver: Driver, server: str, error: BaseException, *, is_first: bool, in_transaction: bool
    ) -> bool:
        """Say whether a statement that a lost master has failed may run once more, on a new link.

        Behind the master's name there may be another server by now. It runs again outside a transaction, where it
        certainly did not run.

        Args:
            driver: says what the error means; `Driver.is_lost_master`.
            server: the master's name.
            error: what it said.
            is_first: the statement has not run again already.
            in_transaction: it belongs to a transaction.

        Raises:
            NoServerError: the master is read-only, and not only for the moment in which another one took its place.
        """
        self.tell_of_lost_master(server, error)
        read_only = driver.read_only_master(error)
        if is_first and not in_transaction and (read_only or driver.not_sent(error)):
            return True
        if read_only:
            raise NoServerError(
                f"The master {server} is read-only: {error}. If another server is the master now, let the name lead to "
                "it, or correct its settings. The statement has changed nothing, nor has its transaction.",
                server=server,
            ) from error
        self.record_write()  # nobody knows whether it was committed
        return False

    def tell_of_lost_master(self, server: str, error: BaseException) -> None:
        """Count a fault of the master, and log it."""
        tell("master-lost", self.name, server, "The master %s does not serve: %s", server, error)

    def refuse_lost_write(self, error: BaseException, server: str) -> NoReturn:
        """Raise NoServerError for a write in slave state that a lost master has failed, as another server has told.

        Args:
            error: what refused it there.
            server: the master's name.
        """
        self.record_write()
        raise NoServerError(
            f"The connection to the master {server} was lost in a write, at {application_place()}. Nobody knows "
            "whether it was done, so it is not tried again. Look, and write again if it was not.",
            server=server,
        ) from error

    # What was decided, and what was written

    def note(self, scope: Scope, state: State, server: str, why: str) -> None:
        """Write down in the scope which server was chosen, and the reason for it."""
        scope.recorded = True
        scope.note(_decision(state, why, server))

    def record_write(self, position: Position | None = None) -> None:
        """Record in the running scope that a write was committed on the master, or may have been (M1).

        Args:
            position: from which on a slave has it; None where nobody knows.
        """
        frame = stack()
        if frame is not None:
            frame.scope.record(self.key, self.name, position)

    def look_for_writes(
        self, link: Hashable, driver: Driver, raw: Raw, scope: Scope | None = None, *, at_once: bool = False
    ) -> None:
        """Record what was committed through a link to the master since this was last asked.

        Args:
            link: to the master.
            driver: tells.
            raw: the link's connection.
            scope: in which it was committed; the running one by default.
            at_once: ask now, because the connection is about to be somebody else's.
        """
        written = driver.take_written(raw)
        if written is not Written.NO:
            self.record_told(link, driver, raw, written, scope, at_once=at_once)

    def record_told(
        self,
        link: Hashable,
        driver: Driver,
        raw: Raw,
        written: Position | Written,
        scope: Scope | None = None,
        *,
        at_once: bool = False,
    ) -> Doubt | Disowned | None:
        """Record what `Driver.take_written` has told; the other arguments are those of `look_for_writes`.

        Where the driver does not know, the server is asked before the scope reads from a slave, or answers.

        Returns:
            what stands for the statements that follow as well, as long as it is not asked and the driver says
            `Written.ASK` of them in the same scope; None where that is nothing.
        """
        if scope is None:
            frame = stack()
            if frame is None:
                driver.disown_written(raw, with_rows=True)
                return _DISOWNED
            scope = frame.scope
        if written is not Written.ASK:
            self.record(scope, written)
            return None
        if at_once or scope.answered:  # nobody is going to ask in time
            self.settle(scope, driver, raw, driver.latest(raw))
            return None
        doubt = scope.doubted(link)
        if not isinstance(doubt, Doubt) or doubt.is_asked:
            doubt = Doubt(self, driver, raw)
            scope.doubt(link, doubt)
        return doubt

    def settle(self, scope: Scope, driver: Driver, raw: Raw, since: Position | None) -> None:
        """Ask the master whether something was written since, and record it in a scope if so."""
        written: Position | Written = Written.YES
        try:
            written = driver.ask_written(raw, since)
        except driver.module.Error as error:
            logger.info("The master did not say what was written: %s", error)
        except PositionError as error:
            fall_back_to_clock(f"The position of a commit cannot be read ({error})")
        self.record(scope, written)

    def record(self, scope: Scope, written: Position | Written) -> None:
        """Record in a scope what is known of its writes."""
        if written is not Written.NO:
            scope.record(self.key, self.name, None if isinstance(written, Written) else written)

    def move_write(
        self, error: BaseException, server: str, *, scope_has_read: bool, transaction_has_read: bool
    ) -> None:
        """Let the master serve the database from now on, because a slave refused a write (S8).

        Args:
            error: what the slave said.
            server: the slave.
            scope_has_read: the scope has read from a slave before.
            transaction_has_read: the open transaction has.

        Raises:
            SlaveWriteError: it may not be moved.
        """
        place = application_place()
        if self.options.on_slave_write == "error":
            self.refuse(error, server, 'on_slave_write is "error"')
        if transaction_has_read:
            self.refuse(error, server, "its transaction has read from the slave, and what it read may be stale")
        frame = stack()
        if frame is not None:
            frame.scope.pin(self.key, "moved-write", again=True)
        tell(
            "moved-write",
            self.name,
            server,
            "A write in slave state was moved to the master, at %s. The slave %s had refused it: %s. Before it, this "
            "scope had %s from a slave. Say use_master() there.",
            place,
            server,
            error,
            "read" if scope_has_read else "not read",
        )

    def refuse_late(self, error: BaseException, server: str) -> NoReturn:
        """Raise SlaveWriteError for a write that a slave refused when rows of it were out already."""
        self.refuse(error, server, "its procedure has already returned rows of the slave")

    def refuse(self, error: BaseException, server: str, why: str) -> NoReturn:
        """Raise SlaveWriteError for a write that a slave refused."""
        place = application_place()
        raise SlaveWriteError(
            f"A write in slave state, at {place}, was refused by the slave {server} ({error}) and not moved to the "
            f"master: {why}. Say use_master() before the first statement that belongs to the write.",
            server=server,
            place=place,
        ) from error
