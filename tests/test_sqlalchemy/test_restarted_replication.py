"""P4: replication is set up again while the application runs. The same positions then belong to other writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.test_core.test_restarted_replication import restart_replication
from tests.test_sqlalchemy.test_replicated_sets import add, number

from replswitch import MASTER, SLAVE, carry, resume
from replswitch.decorators import use_master, use_slave

if TYPE_CHECKING:
    from tests.test_sqlalchemy.conftest import Shop

    from replswitch.testing import ReplicatedPair


@pytest.mark.parametrize("driver", ["mariadb", "mysqlclient"], indirect=True)
def test_p4_no_write_is_missed_after_a_reset_of_the_positions(shop: Shop, replicated_pair: ReplicatedPair) -> None:
    with use_master():
        add(shop)
        add(shop)
        token = carry()
    replicated_pair.wait_caught_up()
    shop.took()
    with resume(token), use_slave():
        assert number(shop) == 2
    assert shop.took() == [SLAVE]  # the slave's position is known now
    restart_replication(replicated_pair)
    with use_master():
        add(shop)
        token = carry()
    shop.took()
    with resume(token), use_slave():
        assert number(shop) == 3
    assert shop.took() == [MASTER]
    replicated_pair.start_slave()
