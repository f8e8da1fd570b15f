"""The calls that count as ours."""

from __future__ import annotations

import pytest
from cost.calls import typical
from cost.counting import Calls, counted

import replswitch
from replswitch.drivers.mysql import MySQLFamilyDriver

SETTINGS = {"host": "master.db"}


def test_calls_in_our_packages_are_counted() -> None:
    switch = replswitch.Switch()
    with counted() as calls:
        for _ in range(3):
            assert switch.state == replswitch.MASTER
    assert calls.ours["replswitch/state.py:Switch.state"] == 3
    assert "replswitch/state.py" in calls.files
    assert not calls.drivers


def test_calls_outside_our_packages_are_not_counted() -> None:
    switch = replswitch.Switch()
    with counted() as calls:
        sorted([3, 1, 2], key=lambda number: -number)
    assert switch.state == replswitch.MASTER
    assert calls == Calls()


def test_a_call_in_the_drivers_folder_counts_if_our_code_makes_it() -> None:
    name = "replswitch/drivers/mysql.py:MySQLFamilyDriver.address"
    with counted() as calls:
        MySQLFamilyDriver().address(SETTINGS)
    assert (calls.ours[name], calls.drivers[name]) == (0, 1)
    with counted() as calls:
        replswitch.connect(SETTINGS)
    assert calls.ours[name] >= 1
    assert calls.drivers[name] == 0


def test_counting_inside_counting_is_an_error() -> None:
    with counted() as calls, pytest.raises(RuntimeError, match="Another profiler"), counted():
        pass
    assert calls == Calls()


def test_the_breakdown_begins_with_what_is_called_most() -> None:
    calls = Calls.of({"b.py:f": 1, "a.py:g": 1, "b.py:h": 4}, {"replswitch/drivers/x.py:y": 9})
    assert [line.split()[:2] for line in calls.breakdown()] == [
        ["4", "b.py:h"],
        ["1", "a.py:g"],
        ["1", "b.py:f"],
        ["9", "replswitch/drivers/x.py:y"],
    ]
    assert calls.files == {"a.py", "b.py"}
    assert Calls.of(*calls.as_pair()) == calls


def test_the_typical_request_is_the_median_of_the_warm_ones() -> None:
    several = [Calls.of({"a.py:f": number}, {}) for number in (90, 80, 70, 60, 50, 9, 3, 5)]
    assert typical(several).ours.total() == 5
