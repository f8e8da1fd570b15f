"""One database as a scope knows it: which side serves it and why, and which writes were moved.

This is what every binding that runs statements shares; how links are opened and transactions begun is its own.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from replswitch.errors import NoServerError, SlaveWriteError
from replswitch.events import tell
from replswitch.health import Choosable
from replswitch.place import application_place
from replswitch.policy import Decision
from replswitch.progress import LinkToSlave
from replswitch.slaves import Slaves
from replswitch.state import MASTER, SLAVE, stack
from replswitch.writes import Writes

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from replswitch.drivers import Driver
    from replswitch.options import DatabaseOptions
    from replswitch.scope import Scope
    from replswitch.slaves import Reach
    from replswitch.state import State, Switch

logger = logging.getLogger("replswitch.servers")

S = TypeVar("S", bound=Choosable)
L = TypeVar("L", bound=LinkToSlave)

#: In a count of failures by state: on the master, by a link that refuses writes, so that nothing can have been written.
READER: Final = "reader"

# The reasons why the master serves reads only until a slave has what must be seen.
_UNTIL_CAUGHT_UP: Final = {"marker", "own-write"}

# Few are different, and one is noted in each request.
_decision = lru_cache(maxsize=256)(Decision)


def no_master(server: str, error: BaseException) -> NoServerError:
    """Return the error for a master that cannot be reached (F3)."""
    return NoServerError(
        f"The master {server} cannot be reached: {error}. Start it, or correct its settings. Reads in slave state go "
        "on meanwhile.",
        server=server,
    )


class Database(Writes):
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
        super().__init__(switch if key is None else key, name)
        self.switch = switch
        self.options = options
        self.slaves = Slaves(name, self.key, options, exist=has_slaves)

    # Which side

    def side(self, *, in_master_transaction: bool) -> tuple[State, str]:
        """Choose the side of a statement (S4, S5, S8).

        Args:
            in_master_transaction: a transaction is open that the master has joined.

        Returns:
            the side, and the reason for it.
        """
        if in_master_transaction:
            return MASTER, "transaction"
        frame = stack()
        if frame is None:
            return MASTER, "default"
        scope = frame.scope
        why = scope.pins.get(self.key)
        if why is not None:
            return MASTER, why
        deciding = self.switch.deciding_frame()
        if deciding is None:
            return MASTER, "default"
        # Whose instruction decides: the request's own, or a use_*() in it.
        state, decision = self.switch.state_by(deciding), scope.decision
        if decision is None or not decision.final:
            if deciding is not frame:
                decision = deciding.scope.decision
            if state != deciding.state:  # something was handed on that holds by time
                return state, "marker"
            if decision is None or deciding.switch is not None or not deciding.begins_scope:
                return state, f"use_{deciding.state}"
        return state, decision.reason

    def read_on_master(self, scope: Scope, why: str) -> str:
        """Let the master serve the reads of the scope from now on, and return the reason: the first that was given."""
        scope.pin(self.key, why)
        return scope.pins[self.key]

    def may_refuse_writes(self, scope: Scope, why: str, reader: object, driver: Driver) -> bool:
        """Say whether a link to the master that refuses writes will do for what the master is to serve.

        It will where the code wants a slave, which has not yet what must be seen; and it spares the question what was
        written, with a driver that does not tell. By time no such link serves: who must see a write whose position
        nobody knows is safest where it was made.

        Args:
            scope: the running one.
            why: the reason why the master serves.
            reader: the master, by such links.
            driver: of the links.
        """
        return (
            not driver.tells_of_writes
            and why in _UNTIL_CAUGHT_UP
            and self.name in scope.must_see
            and self.switch.state == SLAVE
            and not scope.is_in_doubt
            and not scope.avoids(self.key, reader)
        )

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

    # What was decided, and which writes were moved

    def note(self, scope: Scope, state: State, server: str, why: str) -> None:
        """Write down in the scope which server was chosen, and the reason for it."""
        scope.recorded = True
        scope.note(_decision(state, why, server))

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
        text = "A write in slave state was moved to the master, at %s. The slave %s had refused it: %s."
        self._move(server, text, place, server, error, scope_has_read=scope_has_read)

    def move_flush(self, server: str, *, scope_has_read: bool) -> None:
        """Let the master serve the database from now on, because a session in slave state writes what it has pending.

        Args:
            server: the slave that the session reads from; empty where it has none.
            scope_has_read: the scope has read from a slave before.

        Raises:
            SlaveWriteError: it may not be moved.
        """
        place = application_place()
        if self.options.on_slave_write == "error":
            raise SlaveWriteError(
                f'A session was flushed in slave state, at {place}, and on_slave_write is "error". Say use_master() '
                "before the first statement that belongs to the write.",
                server=server,
                place=place,
            )
        text = "A session that was flushed in slave state writes on the master, at %s."
        self._move(server, text, place, scope_has_read=scope_has_read)

    def _move(self, server: str, text: str, *args: object, scope_has_read: bool) -> None:
        frame = stack()
        if frame is not None:
            frame.scope.pin(self.key, "moved-write", again=True)
        text += " Before it, this scope had %s from a slave. Say use_master() there."
        tell("moved-write", self.name, server, text, *args, "read" if scope_has_read else "not read")

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
