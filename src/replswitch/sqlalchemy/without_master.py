"""A session's transaction whose master was gone before anything ran on it: its reads go on elsewhere (F3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from replswitch.database import no_master

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replswitch.scope import Scope
    from replswitch.sqlalchemy.servers import SlaveServer
    from replswitch.sqlalchemy.switch import EngineSwitch


class WithoutMaster:
    """What became of the master in one session's transaction, and which servers may serve in its place.

    Args:
        switch: the database's.

    Attributes:
        error: why the master does not serve; None while it may.
    """

    def __init__(self, switch: EngineSwitch) -> None:
        self._switch = switch
        self.end()

    def end(self) -> None:
        """The master may serve again."""
        self.error: BaseException | None = None
        self._failed_in: int | None = None
        self._failures = 0

    def begin(self, error: BaseException | None, failed_in: int | None = None) -> None:
        """The master does not serve.

        Args:
            error: why.
            failed_in: the call of the session's in which it has failed a statement, which it may have run; None where
                it was not reached.
        """
        self.error, self._failed_in = error, failed_in

    def failed_in(self, call: int | None) -> bool:
        """Say whether the master may have run the statement of a call of the session's."""
        return call is not None and call == self._failed_in

    def servers(self, scope: Scope) -> Sequence[SlaveServer]:
        """Return the servers that may run a statement in the master's place; see `Database.without_master`."""
        switch = self._switch
        return () if switch.reader is None else switch.database.without_master(scope, switch.servers, switch.reader)

    def tries_on(self, call: int) -> bool:
        """Say whether a read that one of these servers has failed may go on to the next one.

        Raises:
            NoServerError: each has failed one that the master has failed before.
        """
        if self.error is None:
            return True
        self._failures += 1
        if self._failures <= len(self._switch.servers) + 1:  # each, and whoever has the master's name
            return True
        if self.failed_in(call):
            self.give_up()
        return False

    def give_up(self) -> NoReturn:
        """Raise NoServerError, because nobody has what must be seen."""
        error, may_have_run = self.error, self._failed_in is not None
        assert error is not None  # noqa: S101 - the master does not serve; for the type checker
        self.end()
        if may_have_run:
            self._switch.database.record_write()
        raise no_master(self._switch.master_name, error) from error
