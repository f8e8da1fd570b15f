"""For the tests of a project: check on which side a block reads, and let slave state work in a TestCase.

::

    class BoardTest(ReplicationTestMixin, TestCase):
        def test_the_board_reads_from_a_slave(self):
            with self.assert_reads_on("slave"):
                self.client.get("/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_replswitch.backends.in_test_case import production_routing
from replswitch.testing import assert_reads_on

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from replswitch import State
    from replswitch.testing.reads import Reads

__all__ = ["ReplicationTestMixin", "assert_reads_on", "production_routing"]


class ReplicationTestMixin:
    """A mixin for test classes of Django. In the list of base classes, put it before Django's class.

    The mixin has the method `assert_reads_on`. In a TestCase, each test runs in `production_routing`, together with
    ``setUp`` and ``tearDown``. ``setUpTestData`` runs outside `production_routing`.
    """

    def run(self, result: Any = None) -> Any:
        """Run the test; see `unittest.TestCase.run`."""
        with production_routing():
            return super().run(result)  # type: ignore[misc]  # of unittest

    def assert_reads_on(self, side: State, database: str | None = None) -> AbstractContextManager[Reads]:
        """Fail if the block reads on the wrong side; see `replswitch.testing.assert_reads_on`."""
        return assert_reads_on(side, database)
