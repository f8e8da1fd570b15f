"""P4: replication is set up again while the application runs. The same positions then belong to other writes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
from tests.test_core.test_positions_on_servers import count, insert, last

from replswitch import MASTER, SLAVE, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.testing import MariaDBPair, MySQLPair

if TYPE_CHECKING:
    from tests.test_core.conftest import Make

    from replswitch.testing import ReplicatedPair

SERVERS = ["mariadb", "mariadb-mysqlclient", "mysql", "mysql-mysqlclient"]
pytestmark = pytest.mark.parametrize("served", SERVERS, indirect=True)

BEGIN_ANEW: Final[dict[type[ReplicatedPair], dict[str, list[str]]]] = {
    MariaDBPair: {
        "slave": ["STOP SLAVE", "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''"],
        # The master may have been a slave, in a test of promotions. As one, it would count that position as reached.
        "master": ["RESET MASTER", "SET GLOBAL gtid_slave_pos = ''"],
    },
    MySQLPair: {
        "slave": ["STOP REPLICA", "RESET REPLICA", "RESET BINARY LOGS AND GTIDS"],
        "master": ["RESET BINARY LOGS AND GTIDS"],
    },
}


def restart_replication(pair: ReplicatedPair) -> None:
    """Make a pair number its transactions from 1 again, and stop its slave. The data of both stay."""
    pair.stop_slave()
    for server, statements in BEGIN_ANEW[type(pair)].items():
        with closing(pair.admin(server)) as admin, admin.cursor() as cursor:  # type: ignore[attr-defined]
            for statement in statements:
                cursor.execute(statement)


@pytest.mark.parametrize("is_other", [False, True], ids=["one connection", "a second connection, like another process"])
def test_p4_no_write_is_missed_after_a_reset_of_the_positions(
    make: Make, replicated_pair: ReplicatedPair, is_other: bool
) -> None:
    writer = make()
    reader = make() if is_other else writer
    written = 0
    for number in range(1, 4):
        with use_master():
            for _ in range(number):  # with the same number each time, no driver could see that the session wrote again
                written += 1
                insert(writer, written)
            token = carry()
        with resume(token), use_slave():
            assert count(reader) == written
        if number > 1:
            assert last(reader) == (MASTER, "marker")
            replicated_pair.start_slave()
        replicated_pair.wait_caught_up()
        with resume(token), use_slave():
            assert count(reader) == written
        assert last(reader)[0] == SLAVE  # the slave's position is known now
        restart_replication(replicated_pair)
    replicated_pair.start_slave()


def test_p4_no_write_of_the_request_itself_is_missed_after_a_reset_of_the_positions(
    make: Make, replicated_pair: ReplicatedPair
) -> None:
    db = make()
    with use_master():
        insert(db, 1)
        replicated_pair.wait_caught_up()
        with use_slave():
            assert count(db) == 1
        assert last(db)[0] == SLAVE
    restart_replication(replicated_pair)
    with use_master():
        insert(db, 2)
        with use_slave():
            assert count(db) == 2
    replicated_pair.start_slave()
