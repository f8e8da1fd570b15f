"""P4: replication is set up again while the project runs. The same positions then belong to other writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.test_core.test_restarted_replication import restart_replication

if TYPE_CHECKING:
    from tests.test_django.requests.board import Site
    from tests.test_django.requests.conftest import Visitors


def test_p4_no_write_is_missed_after_a_reset_of_the_positions(site: Site, new_visitor: Visitors) -> None:
    visitor = new_visitor()
    visitor.post("/?n=2")
    visitor.post("/?n=3")
    site.pair.wait_caught_up()
    assert visitor.get().side == "slave"  # the slave's position is known now
    restart_replication(site.pair)
    visitor = new_visitor()
    visitor.post("/?n=4")
    page = visitor.get()
    assert (page.text, page.side) == ("1 2 3 4", "master")
    site.pair.start_slave()
    site.pair.wait_caught_up()
    assert visitor.get().side == "slave"
