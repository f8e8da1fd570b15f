"""How servers stand, asked on each kind of pair; `tests/test_flask/test_command.py` has them in every state."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import replswitch
from replswitch.standing import Asked, Standing, problems, servers_of, standings, table

if TYPE_CHECKING:
    from replswitch.testing import ReplicatedPair


def test_a_pair(replicated_pair: ReplicatedPair) -> None:
    pair = replicated_pair
    with replswitch.connect(pair.master, pair.slaves, driver=pair.driver) as db:
        master, slave = standings(servers_of(db))
        assert db.database.name == ("main" if pair.driver == "sqlite3" else "shop")
    assert (master.state, slave.state) == ("master", "slave")
    assert master.reachable
    assert slave.reachable
    assert master.identity
    assert slave.identity
    assert master.identity != slave.identity
    assert problems("shop", [master, slave]) == []
    expected = (None, None, None) if pair.driver == "sqlite3" else (True, "running", 0)
    assert (slave.read_only, slave.replication, slave.behind) == expected


def test_a_look_creates_no_file(tmp_path: Any) -> None:
    missing = tmp_path / "missing.db"
    with replswitch.connect({"database": str(missing)}, driver="sqlite3") as db:
        master, slave = standings(servers_of(db))
    assert master.problem == slave.problem == "no connection: unable to open database file"
    assert not missing.exists()


def test_one_that_never_answers_is_not_waited_for() -> None:
    done = threading.Event()

    def never(timeout: float) -> Any:
        done.wait()
        raise OSError

    try:
        (master,) = standings([Asked("master", "silent.db", never, OSError)], timeout=0.1)
    finally:
        done.set()
    assert (master.server, master.reachable, master.problem) == ("silent.db", False, "no answer within 0.1 s")


def test_a_driver_that_nobody_knows() -> None:
    class Raw:
        def close(self) -> None:
            pass

    (master,) = standings([Asked("master", "other.db", lambda timeout: Raw(), OSError)])
    assert (master.reachable, master.problem) == (True, None)
    assert master.note is not None
    assert "cannot ask it more" in master.note


@pytest.mark.parametrize("error", [ValueError("what?"), OSError(2, "No such host"), KeyError()])
def test_whatever_keeps_it_from_answering_is_told_of(error: Exception) -> None:
    def fail(timeout: float) -> Any:
        raise error

    (master,) = standings([Asked("master", "broken.db", fail, OSError)])
    assert str(master.problem).startswith("no connection: ")


def test_a_table() -> None:
    found = [
        Standing("master", "master.db", reachable=True, version="10.11.6-MariaDB", read_only=False),
        Standing("slave", "slave.db", note="what else there is", replication="running", behind=3, read_only=True),
    ]
    assert table("shop", found).split("\n") == [
        "shop",
        "  state   server     reachable  version          read_only  replication  behind",
        "  master  master.db  yes        10.11.6-MariaDB  no         -            -",
        "  slave   slave.db   no         -                yes        running      3 s",
        "  slave slave.db: what else there is",
    ]
    assert found[1].as_json()["behind"] == 3
