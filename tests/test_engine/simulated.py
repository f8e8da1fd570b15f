"""The driver and the error that two simulations of servers share."""

from __future__ import annotations

import types
from typing import Any, Final

from replswitch import Switch
from replswitch.drivers import Driver, Fault, WriteTracker

NOT_RUN: Final = (Fault.UNSENT, Fault.FULL, Fault.REFUSED, Fault.READ_ONLY)
"""The faults after which the statement has certainly not run. After the others it may have."""


class SimulatedError(Exception):
    """The only error of a simulated driver."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


class SimulatedDriver(Driver):
    """A driver whose connections track their own writes. A simulation adds the positions."""

    def __init__(self) -> None:
        self.module = types.ModuleType("simulated")
        self.module.Error = self.module.InterfaceError = SimulatedError  # type: ignore[attr-defined]

    def writes_of(self, raw: Any) -> WriteTracker:
        assert isinstance(raw, WriteTracker)
        return raw

    def classify(self, error: BaseException, raw: Any = None) -> Fault:
        assert isinstance(error, SimulatedError)
        return error.fault


class RecordingSwitch(Switch):
    """A switch whose database records its writes."""

    records_writes = True
