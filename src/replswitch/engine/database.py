"""One replicated database: its switch, its servers, and the state that each scope asks for. All threads share it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from replswitch.decision import JOB, MASTER, SLAVE, Decision
from replswitch.drivers import GONE, Fault
from replswitch.engine.choose import Failed, choose_master_read_only, master_lacks, run
from replswitch.engine.events import Incident, count
from replswitch.engine.master import MasterLoss
from replswitch.engine.outcome import no_master, no_slave, report_moved_write
from replswitch.engine.resolving import ResolvingRotation, ResolvingServers
from replswitch.engine.rotation import Rotation
from replswitch.engine.writes import Writes
from replswitch.errors import ReplSwitchError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replswitch.decision import State
    from replswitch.drivers import Driver
    from replswitch.engine.block import Block
    from replswitch.engine.options import DatabaseOptions
    from replswitch.engine.port import Port
    from replswitch.engine.servers import Link, Server, Servers
    from replswitch.scope import Scope
    from replswitch.state import Frame, Switch

#: The reason that is recorded if the master serves a read because the option ``rollout`` excludes the visitor.
ROLLOUT: Final = "rollout"

# For these reasons the master serves reads only until a slave has caught up.
_UNTIL_CAUGHT_UP: Final = frozenset({"marker", "own-write"})

# There are few different decisions, and each request records one.
_decision = lru_cache(maxsize=256)(Decision)


class Database:
    """One replicated database.

    Args:
        switch: has the state that the running code asks for.
        name: the display name of the database.
        servers: its servers.
        options: its options.
        set_name: the name of the replicated set in markers and in scopes. All databases of one master share this name
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
        self.rotation = (
            ResolvingRotation(name, self.key, servers, options)
            if isinstance(servers, ResolvingServers)
            else Rotation(name, self.key, servers, options)
        )
        self.master_loss = MasterLoss(name, servers, options.downtime)
        self.takeover = Incident("takeover", "takeover-end", name)
        self.writes = Writes(self.set_name, self.master_loss)

    def side(self, frame: Frame | None, scope: Scope, block: Block | None) -> tuple[State, str]:
        """Return the state in which a statement runs, and the reason (S4, S5, S8).

        Args:
            frame: the top frame of the stack of instructions; None if no instruction is in force.
            scope: the scope of the frame.
            block: the open transaction; None outside a transaction.

        Raises:
            ReplSwitchError: a task of a request's first try runs a statement, but the request runs again (R5).
        """
        if scope.ended and scope.safe_request is not None and scope.safe_request.runs_again:
            raise ReplSwitchError(
                "This statement was not run. It belongs to a task that a request has started, and this request runs "
                "again on the master, so the statement would run twice. If a task is to outlive its request, start the "
                "task in a new contextvars.Context."
            )
        if block is not None and block.links and block.on_master:
            return MASTER, "transaction"
        if frame is None:
            return MASTER, "default"
        if scope.forced_master and (why := self.forced_master(scope, block)) is not None:
            return MASTER, why
        deciding = self.switch.deciding_frame()
        if deciding is None:
            return MASTER, "default"
        if block is not None and deciding.reason == JOB:
            return MASTER, "transaction"  # a job may write in the transaction what it has computed from its reads
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
        """Return why the master must serve the database in a scope; None if nothing forces this.

        The reason ``learned`` (the endpoint is known to write) does not apply to a transaction that has read from a
        slave. Its write may depend on that read, so the write is refused, and the request runs again (R5).
        """
        reasons = scope.forced_master.get(self.key), scope.forced_master.get(self.set_name)
        has_read = block is not None and block.has_read
        return next((why for why in reasons if why is not None and not (has_read and why == "learned")), None)

    def reason_for_master(self, scope: Scope) -> str:
        """Return why the master must serve the reads of a scope, if no slave can serve them.

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

    def report_moved_write(self, server: str, error: BaseException | None, *, has_read: bool) -> None:
        """Count that a write in slave state runs on the master, and log it; see `outcome.report_moved_write`.

        A write of a job is only counted, because it is no mistake. But after ``use_slave()`` in the job, it is logged.
        """
        deciding = self.switch.deciding_frame()
        if deciding is not None and deciding.reason == JOB:
            count("moved-write", self.name, server)
        else:
            report_moved_write(self.name, server, error, has_read=has_read)

    def asks_slaves(self, frame: Frame | None) -> bool:
        """Return whether choosing a slave may need a connection, to query the slave's position or to try the slave."""
        return frame is None or bool(self.rotation.resting) or self.set_name in frame.scope.must_see

    def reads_only(self, scope: Scope, why: str, driver: Driver, block: Block | None) -> bool:
        """Return whether a statement for the master runs over a read-only link.

        If the option ``rollout`` excludes the visitor (R6), return True, unless such a link has failed in the scope.

        With drivers that have `must_ask`, also return True outside a transaction, if the code asks for a slave but no
        slave has caught up. No query for written data is needed after a statement on a read-only link. But return False
        if the scope must see a write whose position is unknown, because only the connection that made the write
        certainly sees it.

        Args:
            scope: the running scope.
            why: the reason why the master serves.
            driver: the driver of the links.
            block: the open transaction; None outside a transaction.
        """
        if why == ROLLOUT:
            return (self.key, self.servers.master_read_only) not in scope.avoided
        return (
            block is None
            and driver.must_ask
            and why in _UNTIL_CAUGHT_UP
            and self.set_name in scope.must_see
            and self.switch.state == SLAVE
            and not scope.pending
            and (self.key, self.servers.master_read_only) not in scope.avoided
        )

    def open_master_read_only(self, scope: Scope, port: Port) -> Link | None:
        """Return a read-only link to the master; None if the master answers, but refuses such a connection.

        Raises:
            Exception: the driver's own error, if the master cannot be reached.
        """
        server, must_see = self.servers.master_read_only, scope.must_see.get(self.set_name)
        found = run(choose_master_read_only(server, must_see, scope, self.rotation), port)
        if found is None:
            port.drop(server)
            return port.open(server)
        if not isinstance(found, Failed):
            return found
        if found.fault in GONE and found.fault is not Fault.FULL:
            raise found.error
        scope.avoid_slave(self.key, server)
        return None

    def leads_to_former_master(self, scope: Scope, link: Link, port: Port) -> bool:
        """Return whether a link to the master may lead to a former master, which lacks writes that the scope must see.

        If a link was lost during a write, the position of this write is unknown, so positions cannot be compared. Then
        return True for each link that was opened before the loss. This does not apply to a link of SQLAlchemy that has
        no connection yet, because its pool will give it a connection from after the loss.
        """
        if link.raw is not None and link.opened_at <= scope.lost_before.get(self.set_name, 0):
            return True
        must_see = scope.must_see.get(self.set_name)
        return must_see is not None and run(master_lacks(link, must_see, scope, self.rotation), port)

    def raise_if_master_is_gone(self, driver: Driver, error: Exception) -> None:
        """If a failed connect shows that the master is gone, count and log the event, and raise NoServerError (F5)."""
        if (fault := driver.classify(error)) in GONE:
            self.master_loss.not_reached(fault)
            self.master_loss.report(error, fault)
            raise no_master(self.servers.master, error, driver) from error

    def servers_without_master(self, scope: Scope) -> tuple[Server, ...]:
        """Return the servers that may run a statement instead of a lost master, over read-only links.

        If the code asks for the master, there are none. If it asks for a slave, the statement is most likely a read,
        and may run on each server that has what the scope must see. If the scope must see a write whose position is
        unknown, or if the option ``rollout`` excludes the visitor, it may run only on the server to which the master's
        name now points.
        """
        servers = self.servers
        wants_slave = self.switch.state == SLAVE or (scope.master_only and scope.is_safe)
        if not wants_slave or scope.forced_master.get(self.key) == "moved-write":
            return ()
        unknown = scope.master_only or (scope.wrote is not None and scope.wrote.written_at is not None)
        if unknown or scope.held_back:
            return (servers.master_read_only,)
        servers.look_up()
        if servers.master_read_only in servers.slaves:
            return servers.slaves
        return (*servers.slaves, servers.master_read_only)

    def note(self, scope: Scope, state: State, server: Server, why: str) -> None:
        """Record in a scope which server was chosen, and the reason."""
        if self.takeover.lasts and state == SLAVE and why not in {"no-master", ROLLOUT}:
            self.takeover.ends(server.name, "The slave %s serves the reads of %s again.", server.name, self.name)
        scope.recorded = True
        if why == "marker" and self.key not in scope.marked:
            scope.marked |= {self.key}
            count("marker", self.name, server.name)
        scope.note(_decision(state, why, server.name))
