"""`max_lag` with servers that have no replication status, as in clusters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

import replswitch
from replswitch import Connection
from replswitch.decorators import use_master, use_slave
from replswitch.testing import MariaDBPair, MySQLPair

if TYPE_CHECKING:
    from replswitch.testing.servers import ServerPair


class Galera(MariaDBPair):
    """Servers that report themselves as nodes of a Galera cluster, without Galera's library."""

    def _command(self, name: str, port: int) -> list[str]:
        return [*super()._command(name, port), "--wsrep-on=ON", "--wsrep-provider=none", "--binlog-format=ROW"]


PAIRS: dict[str, type[ServerPair]] = {"mariadb": MariaDBPair, "mysql": MySQLPair, "galera": Galera}
PRIVILEGES = {"mariadb": "SLAVE MONITOR", "mysql": "REPLICATION CLIENT", "galera": "SLAVE MONITOR"}


@pytest.fixture(scope="module")
def pairs() -> Iterator[Callable[[str], ServerPair]]:
    """Pairs whose second server has no replication source, like a member of a cluster."""
    with ExitStack() as running:
        made: dict[str, ServerPair] = {}

        def pair(kind: str) -> ServerPair:
            if kind not in made:
                made[kind] = running.enter_context(PAIRS[kind]())
                with closing(made[kind].admin("master")) as admin, admin.cursor() as cursor:
                    cursor.execute("CREATE TABLE shop.message (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)")
                made[kind].wait_caught_up()
                made[kind].stop_slave()
                with closing(made[kind].admin("slave")) as admin, admin.cursor() as cursor:
                    cursor.execute("RESET REPLICA ALL" if kind == "mysql" else "RESET SLAVE ALL")
            return made[kind]

        yield pair


@pytest.fixture(params=["account may ask for the lag", "account may not ask for the lag"])
def make(
    request: pytest.FixtureRequest, pairs: Callable[[str], ServerPair], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Connection]]:
    monkeypatch.setattr("replswitch.engine.lag.EVERY", 0.1)
    with ExitStack() as opened:

        def connect(kind: str, driver: str) -> Connection:
            pair = pairs(kind)
            verb = (
                "GRANT {} ON *.* TO {}@'%'"
                if request.param == "account may ask for the lag"
                else "REVOKE {} ON *.* FROM {}@'%'"
            )
            for name in pair.names:
                with closing(pair.admin(name)) as admin, admin.cursor() as cursor:
                    cursor.execute("SET SESSION sql_log_bin = 0")
                    cursor.execute(f"GRANT {PRIVILEGES[kind]} ON *.* TO {pair.user}@'%'")
                    cursor.execute(verb.format(PRIVILEGES[kind], pair.user))
            db = replswitch.connect(pair.master, pair.slaves, driver=driver, max_lag=0.5, debug=True)
            return opened.enter_context(closing(db))

        yield connect


def run(db: Connection, sql: str) -> Any:
    with db.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def reason(db: Connection) -> str:
    """Read. Return the reason for the server."""
    time.sleep(0.05)
    with use_slave():
        run(db, "SELECT COUNT(*) FROM message")
    return str(db.queries[-1]["reason"])


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_f1_the_lag_of_a_slave_that_follows_no_master_is_measured_by_positions(
    make: Callable[[str, str], Connection], kind: str, driver: str
) -> None:
    db = make(kind, driver)
    with use_master():
        run(db, "INSERT INTO message (body) VALUES ('x')")
    while reason(db) != "no-slave":  # the time-out of the tests is the end of a slave that serves on
        pass


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_f1_nodes_of_galera_stay_in_rotation_and_one_log_line_says_that_max_lag_has_no_effect(
    make: Callable[[str, str], Connection], caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    db = make("galera", driver)
    with use_master():
        run(db, "INSERT INTO message (body) VALUES ('x')")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert reason(db) != "no-slave"
    name = db.servers.slaves[0].name
    lines = [record.getMessage() for record in caplog.records if "max_lag" in record.getMessage()]
    assert lines == [f"max_lag has no effect on {name}, because no replication status or position shows its lag."]
