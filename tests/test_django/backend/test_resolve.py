"""Slaves behind a HOST with several addresses (RESOLVE, F7)."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from tests.behind_name import NAME, ONE, TWO, Clock, Names, ProxyAt, eventually, proxies
from tests.test_django.backend.asking import ask
from tests.test_django.project import dialect
from tests.test_django.project.dialect import Pair

from django_replswitch.management.commands.replswitch import Command


@pytest.fixture
def at(django_pair: Pair) -> Iterator[dict[str, ProxyAt]]:
    """A proxy of the slave at each address, all with one port."""
    with proxies(django_pair.slaves[0]["port"]) as found:
        yield found


def behind_name(at: dict[str, ProxyAt]) -> list[dict[str, Any]]:
    return [{"HOST": NAME, "PORT": at[ONE].port, "RESOLVE": True}]


def read(db: Any) -> str:
    """Read in a scope of its own; return the name of the server."""
    with db.use_slave():
        assert ask(db, "SELECT 1") == 1
    return str(db.queries[-1]["server"])


def readers(db: Any) -> set[str]:
    return {read(db) for _ in range(25)}


@pytest.mark.parametrize("is_pooled", [False, True] if dialect.IS_POSTGRESQL else [False])
def test_f7_each_address_serves_and_a_new_one_joins_and_a_former_one_leaves(
    make: Any, at: dict[str, ProxyAt], names: Names, clock: Clock, is_pooled: bool
) -> None:
    options = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2}}} if is_pooled else {}
    db = make(SLAVES=behind_name(at), **options)
    db.force_debug_cursor = True
    one, two = (f"{NAME} ({address}:{at[ONE].port})" for address in (ONE, TWO))
    names.addresses = (ONE,)
    assert readers(db) == {one}
    names.addresses = (ONE, TWO)
    clock.passed += 100
    assert readers(db) == {one, two}
    assert names.asked == 2
    names.addresses = (TWO,)
    clock.passed += 100
    assert readers(db) == {two}
    db.close()
    eventually(lambda: at[ONE].connections == 0)
    if is_pooled:
        db.close_pool()


def test_f7_the_link_of_a_thread_to_an_address_that_is_gone_is_closed(
    make: Any, at: dict[str, ProxyAt], names: Names, clock: Clock
) -> None:
    db = make(SLAVES=behind_name(at))
    db.force_debug_cursor = True
    readers(db)
    with transaction.atomic(using=db.alias), db.use_slave():
        ask(db, "SELECT 1")
        used = ONE if ONE in db.queries[-1]["server"] else TWO
        names.addresses = (TWO,) if used == ONE else (ONE,)
        clock.passed += 100
        db._shared.servers.look_up()
        assert ask(db, "SELECT 2") == 2
        assert used in db.queries[-1]["server"], "the transaction does not end where it has read"
    assert used not in read(db)
    eventually(lambda: at[used].connections == 0)


def test_f7_manage_py_replswitch_shows_each_address(
    django_pair: Pair, db: Any, at: dict[str, ProxyAt], names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(db.settings_dict, "SLAVES", behind_name(at))
    output = StringIO()
    call_command(Command(), "--database", "default", stdout=output)
    for address in (ONE, TWO):
        assert f"slave   {NAME} ({address}:{at[ONE].port})" in output.getvalue()
    names.addresses = ()
    with pytest.raises(CommandError, match=f"the slave {NAME}:{at[ONE].port}: no connection: Name or service"):
        call_command(Command(), "--database", "default", stdout=output)
