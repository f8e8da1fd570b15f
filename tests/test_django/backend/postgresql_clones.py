"""P4: a process that uses clones, which are PostgreSQL sets with one system identifier, keeps them apart.

`test_postgresql.py` runs this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conftest import Clones
from tests.test_django.backend.asking import ask

from replswitch import resume
from replswitch.decorators import use_master, use_slave


def of(master: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a server of a pair as Django's."""
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "dbname"}
    return {name: master[own] for name, own in names.items()}


def test_p4_the_master_of_a_clone_given_as_a_slave_serves_no_read_that_must_see_a_write(
    clones: Clones, make: Callable[..., Any]
) -> None:
    """It is given as a slave by mistake. Its log is longer, but is not that of the master."""
    longer, shorter = of(clones.longer.master), of(clones.shorter.master)
    other = make(**longer, SLAVES=[], REPLICATED_SET="longer")
    db = make(**shorter, SLAVES=[longer], REPLICATED_SET="shorter")
    for each in (other, db):
        with resume(""), use_master():
            number = ask(each, f"INSERT INTO message (body) VALUES ('{each.alias}') RETURNING id")
            with use_slave():
                assert ask(each, f"SELECT body FROM message WHERE id = {number}") == each.alias


def test_p4_all_connections_of_an_alias_share_what_is_known_of_its_servers(make: Callable[..., Any]) -> None:
    one, other = make(), make()
    assert one.copy().driver is one.driver
    assert one.driver is not other.driver
