"""One replicated database: its switch, its servers, and the state that each scope asks of it. Shared by all threads."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from replswitch.decision import MASTER, SLAVE, Decision
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

# The reasons for which the master serves reads only until a slave has what must be seen.
_UNTIL_CAUGHT_UP: Final = frozenset({"marker", "own-write"})

# Few are different, and one is noted in each request.
_decision = lru_cache(maxsize=256)(Decision)


class Database:
    """One replicated database.

    Args:
        switch: the state that the running code wants.
        name: what people call the database.
        servers: its servers.
        options: how it is served.
        set_name: what its replicated set is called in markers, and in scopes: one name for all databases of one master
            (M8), in every process of the application. What people call the database by default.

    Attributes:
        key: what the database is called in scopes.
        rotation: which slaves are in rotation.
        master_loss: whether the master serves.
        takeover: the master serves reads, because no slave can.
        writes: records what is written.
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
            scope: its scope.
            block: the transaction that is open.

        Raises:
            ReplSwitchError: a task has outlived the first try of a request that runs again (R5).
        """
        if scope.ended and scope.safe_request is not None and scope.safe_request.runs_again:
            raise ReplSwitchError(
                "This statement was not run. It belongs to the first try of a request that runs again on the master, "
                "and would be run twice. If the work may outlive the request, start it in a context of its own."
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
        # Whose instruction decides: the request's own, or a use_*() in it.
        decision = scope.decision
        if decision is not None and decision.final:
            return decision.state, decision.reason
        if deciding is not frame:
            decision = deciding.scope.decision
        if scope.master_only and deciding.state == SLAVE:
            return MASTER, "marker"  # one was handed over that holds by time
        if decision is None or deciding.switch is not None or not deciding.begins_scope:
            return deciding.state, deciding.reason or f"use_{deciding.state}"
        return deciding.state, decision.reason

    def forced_master(self, scope: Scope, block: Block | None) -> str | None:
        """Return why the master must serve the database in a scope; None where it need not.

        What is known of an endpoint does not move a transaction that has read from a slave: its write, which may
        depend on that, is refused, and the request runs again (R5).
        """
        reasons = scope.forced_master.get(self.key), scope.forced_master.get(self.set_name)
        has_read = block is not None and block.has_read
        return next((why for why in reasons if why is not None and not (has_read and why == "learned")), None)

    def reason_for_master(self, scope: Scope) -> str:
        """Return why the master must serve the reads of a scope, where no slave can.

        Returns:
            ``own-write`` or ``marker`` where there is something that a slave may lack, else ``no-slave``.

        Raises:
            NoServerError: the master may not (the option ``fallback``).
        """
        if self.servers.has_slaves and self.set_name in scope.must_see:
            return "own-write" if scope.has_written(self.set_name) else "marker"
        if self.options.fallback == "error":
            raise no_slave(self.name)
        self.takeover.happens("", "The master serves the reads of %s, because no slave can.", self.name)
        return "no-slave"

    def asks_slaves(self, frame: Frame | None) -> bool:
        """Say whether slaves are asked or tried, over a connection, before one is chosen."""
        return frame is None or bool(self.rotation.resting) or self.set_name in frame.scope.must_see

    def reads_only(self, scope: Scope, why: str, driver: Driver) -> bool:
        """Say whether a read-only link to the master will do for a statement that the master is to serve.

        It will where the code wants a slave that has not caught up yet. With a driver that does not tell of writes
        that saves the question what was written. Never where markers hold by time: a write whose position is unknown
        is seen most safely where it was made.

        Args:
            scope: the running one.
            why: the reason for which the master serves.
            driver: of the links.
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
        """Say whether a link to the master leads to a former one, which lacks what a scope must see."""
        return run(master_lacks(link, scope.must_see.get(self.set_name), scope, self.rotation), port)

    def raise_if_master_is_gone(self, driver: Driver, error: Exception) -> None:
        """Raise NoServerError, and count (F5), if an error says of a new connection that the master is gone."""
        if driver.is_gone(error):
            self.master_loss.report(error, driver)
            raise no_master(self.servers.master, error, driver) from error

    def servers_without_master(self, scope: Scope) -> tuple[Server, ...]:
        """Return the servers that may run a statement in the place of a lost master, over links that refuse writes.

        Only where the code wants a slave, so that the statement is most likely a read. Any server that has what must
        be seen will do; where that is unknown, only the one that the master's name leads to by now.
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
        """Write down in a scope which server was chosen, and the reason."""
        if self.takeover.lasts and state == SLAVE and why != "no-master":
            self.takeover.ends(server.name, "The slave %s serves the reads of %s again.", server.name, self.name)
        scope.recorded = True
        scope.note(_decision(state, why, server.name))
