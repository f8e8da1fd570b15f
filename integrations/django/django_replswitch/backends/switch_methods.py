"""The switch of a database, as methods of Django's connection object."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replswitch import State, Switch
    from replswitch.state import Frame


class SwitchMethods:
    """A mixin for an object that has a switch."""

    switch: Switch

    def use_master(self) -> Frame:
        """Use the master from now on, or in ``with connection.use_master():`` only in the block."""
        return self.switch.use_master()

    def use_slave(self) -> Frame:
        """Use a slave from now on, or in ``with connection.use_slave():`` only in the block."""
        return self.switch.use_slave()

    def revert(self) -> None:
        """Undo the latest call of `use_master` or `use_slave`; raise RevertError if there is none."""
        self.switch.revert()

    @property
    def state(self) -> State:
        """The side that the running code asks for."""
        return self.switch.state

    @property
    def state_change_disabled(self) -> bool:
        """Whether `use_master` and `use_slave` have no effect on this alias. Each call still needs its `revert`."""
        return self.switch.state_change_disabled

    @state_change_disabled.setter
    def state_change_disabled(self, disabled: bool) -> None:
        self.switch.state_change_disabled = disabled
