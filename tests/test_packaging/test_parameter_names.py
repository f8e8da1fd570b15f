"""A list of failures shows which parameters a test has failed with."""

from __future__ import annotations

import re

import pytest
from tests.parameter_names import name_of

from replswitch.decision import Decision
from replswitch.drivers import Fault


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"wait": -1, "slaves": [None, dict]}, "value={wait: -1, slaves: [None, dict]}"),
        ({"b", "a"}, "value={'a', 'b'}"),
        (["master", 2.5], "value=['master', 2.5]"),
        (("master", 2.5), "value=('master', 2.5)"),
        ((b"",), "value=(b'',)"),
        (False, "value=False"),
        (ValueError("why"), "value=ValueError('why')"),
        ("", "value=''"),
        (Decision("slave", "method"), "value=Decision(state='slave', reason…od', server=None, final=False)"),
        ("2", "value='2'"),
        (" ", "value=' '"),
        ("1" * 101, f"value='{'1' * 29}…{'1' * 29}'"),
        (object(), "value=object()"),
        ("text", None),
        ("-1-2-3", "value='-1-2-3'"),
        ("x", "value='x'"),
        ("yes", "value='yes'"),
        (dict, None),
        (Fault.LOST, None),
        (re.compile("x"), None),
    ],
)
def test_the_id_of_a_test_shows_a_parameter_that_pytest_would_number(value: object, name: str | None) -> None:
    assert name_of(value, "value") == name


def test_the_id_of_a_test_shows_the_name_of_a_parameter_whose_strings_say_nothing_alone() -> None:
    assert name_of("passed", "ours") == "ours='passed'"
