"""One replicated database: its switch, its servers, and the state that each scope asks for. All threads share it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from replswitch.decision import MASTER, SLAVE, Decision
from replswitch.drivers import GONE
from replswitch.engine.choose import master_lacks, run
from replswitch.engine.events import Incident
from replswitch.engine.master import MasterLoss
from replswitch.engine.outcome import no_master, no_slave
from replswitch.engine.rotation import Rotation
from replswitch.engine.writes import Writes
from replswitch.errors import ReplSwitchError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.decision import State
    from replswitch.drivers import Driver
    from replswitch.engine.attempt import Block
    from replswitch.engine.options import DatabaseOptions
    from replswitch.engine.port import Port
    from replswitch.engine.servers import Link, Server, Servers
    from replswitch.scope import Scope
    from replswitch.state import Frame, Switch

# For these reasons the master serves reads only until a slave has caught up.
_UNTIL_CAUGHT_UP: Final = frozenset({"marker", "own-write"})

# There are few different decisions, and each request records one.
_decision = lru_cache(maxsize=256)(Decision)


class Database:
    """One replicated database.

    Args:
        switch: the state that the running code asks for.
        name: the display name of the database.
        servers: its servers.
        options: its options.
        set_name: the name of its replicated set in markers and in scopes: one name for all databases of one master
            (M8), in every process of the application. By default, it is the display name.

    Attributes:
        key: the key of the database in scopes.
        rotation: which slaves are in rotation.
        master_loss: whether the master is available.
        takeover: the periods in which the master serves reads, because no slave can.
        writes: records the writes.
    """

    def __init__(
        self, switch: Switch, name: str, servers: Servers, options: DatabaseOptions, set_name: str = ""
    ) -> None:
        self.switch = switch
        self.name = name
        self.servers = servers
        self.options = options
        self.set_name = set_name or name
        self.key: Hashable = switch
        self.rotation = Rotation(name, self.key, servers, options)
        self.master_loss = MasterLoss(name, servers.master, options.downtime)
        self.takeover = Incident("takeover", "takeover-end", name)
        self.writes = Writes(self.set_name, self.master_loss)

    def side(self, frame: Frame | None, scope: Scope, block: Block | None) -> tuple[State, str]:
        """Return the state in which a statement runs, and the reason (S4, S5, S8).

        Args:
            frame: the top of the stack.
            scope: the scope of the frame.
            block: the open transaction.

        Raises:
            ReplSwitchError: a task has outlived the first try of a request that runs again (R5).
        """
        if scope.ended and scope.safe_request is not None and scope.safe_request.runs_again:
            raise ReplSwitchError(
                "This statement was not run. It belongs to the first try of a request that runs again on the master, "
                "and would be run twice. If the work may outlive the request, start it in a new contextvars.Context."
            )
        if block is not None and block.on_master:
            return MASTER, "transaction"
        if frame is None:
            return MASTER, "default"
        if scope.forced_master and (why := self.forced_master(scope, block)) is not None:
            return MASTER, why
        deciding = self.switch.deciding_frame()
        if deciding is None:
            return MASTER, "default"
        # Either the request's own instruction decides, or a use_*() in the request.
        decision = scope.decision
        if decision is not None and decision.final:
            return decision.state, decision.reason
        if deciding is not frame:
            decision = deciding.scope.decision
        if scope.master_only and deciding.state == SLAVE:
            return MASTER, "marker"  # the marker that was handed over has no position
        if decision is None or deciding.switch is not None or not deciding.begins_scope:
            return deciding.state, deciding.reason or f"use_{deciding.state}"
        return deciding.state, decision.reason

    def forced_master(self, scope: Scope, block: Block | None) -> str | None:
        """Return why the master must serve the database in a scope; None if it need not.

        That an endpoint is known to write does not move a transaction that has read from a slave: its write may depend
        on that read, so the write is refused, and the request runs again (R5).
        """
        reasons = scope.forced_master.get(self.key), scope.forced_master.get(self.set_name)
        has_read = block is not None and block.has_read
        return next((why for why in reasons if why is not None and not (has_read and why == "learned")), None)

    def reason_for_master(self, scope: Scope) -> str:
        """Return why the master must serve the reads of a scope, after no slave could.

        Returns:
            ``own-write`` or ``marker`` if the scope must see something that a slave may lack, else ``no-slave``.

        Raises:
            NoServerError: the option ``fallback`` does not allow the master to serve the reads.
        """
        if self.servers.has_slaves and self.set_name in scope.must_see:
            return "own-write" if scope.has_written(self.set_name) else "marker"
        if self.options.fallback == "error":
            raise no_slave(self.name)
        self.takeover.happens("", "The master serves the reads of %s, because no slave can.", self.name)
        return "no-slave"

    def asks_slaves(self, frame: Frame | None) -> bool:
        """Say whether choosing a slave may need a connection, to ask a slave or to try one."""
        return frame is None or bool(self.rotation.resting) or self.set_name in frame.scope.must_see

    def reads_only(self, scope: Scope, why: str, driver: Driver) -> bool:
        """Say whether a statement for the master can use a read-only link.

        It can if the code asks for a slave, and no slave has caught up yet. With a driver that does not report writes,
        this saves the question afterwards whether the statement has written. It never can if markers have no
        positions: a write whose position is unknown is seen most safely on the server where it was made.

        Args:
            scope: the running scope.
            why: the reason why the master serves.
            driver: the driver of the links.
        """
        return (
            driver.must_ask
            and why in _UNTIL_CAUGHT_UP
            and self.set_name in scope.must_see
            and self.switch.state == SLAVE
            and not scope.pending
            and (self.key, self.servers.master_read_only) not in scope.avoided
        )

    def leads_to_former_master(self, scope: Scope, link: Link, port: Port) -> bool:
        """Say whether the server of a link to the master is a former master, which lacks what a scope must see."""
        return run(master_lacks(link, scope.must_see.get(self.set_name), scope, self.rotation), port)

    def raise_if_master_is_gone(self, driver: Driver, error: Exception) -> None:
        """Raise NoServerError, and count the loss (F5), if a new connection's error means that the master is gone."""
        if (fault := driver.classify(error)) in GONE:
            self.master_loss.report(error, fault)
            raise no_master(self.servers.master, error, driver) from error

    def servers_without_master(self, scope: Scope) -> tuple[Server, ...]:
        """Return the servers that may run a statement instead of a lost master, over read-only links.

        There are none unless the code asks for a slave, so the statement is most likely a read. Any server that has
        what must be seen will do. If that position is unknown, only the server that the master's name points to now
        will do.
        """
        servers = self.servers
        wants_slave = self.switch.state == SLAVE or (scope.master_only and scope.is_safe)
        if not wants_slave or scope.forced_master.get(self.key) == "moved-write":
            return ()
        if scope.master_only or (scope.wrote is not None and scope.wrote.written_at is not None):
            return (servers.master_read_only,)
        if servers.master_read_only in servers.slaves:
            return servers.slaves
        return (*servers.slaves, servers.master_read_only)

    def note(self, scope: Scope, state: State, server: Server, why: str) -> None:
        """Record in a scope which server was chosen, and the reason."""
        if self.takeover.lasts and state == SLAVE and why != "no-master":
            self.takeover.ends(server.name, "The slave %s serves the reads of %s again.", server.name, self.name)
        scope.recorded = True
        scope.note(_decision(state, why, server.name))
