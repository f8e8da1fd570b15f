"""Tests of this folder run again on PostgreSQL, with each of its drivers, in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.test_django.again import outermost, run_again

AGAIN = {
    "psycopg": {
        "on_postgresql.py": "",
        "postgresql_clones.py": "",
        "postgresql_pools.py": "",
        "test_resolve.py": "",
        "test_test_tools.py": "",
        "test_writes.py": "",
        "test_transactions.py": "Atomic or Savepoints or LostLinks or ByHand or ForUpdate",
        "test_faults.py": "savepoint or BegunByAStatement or AtFault or NotReplicated or closed_cursor",
        "test_without_master.py": "read_only or cannot_begin or lost_master",
        "test_slave_writes.py": "runs_on_the_master or AfterARead or whole or session_raises or its_link_writable",
        "test_links.py": "Opening or killed",
        "test_production_routing.py": "commit_nothing",
    },
    "psycopg2": {
        "on_postgresql.py": "",
        "postgresql_clones.py": "",
        "test_writes.py": "recorded",
        "test_transactions.py": "Savepoints or ByHand",
        "test_slave_writes.py": "AfterARead or whole or session_raises or its_link_writable",
        "../requests/test_round_trips.py": "",
        "../requests/test_markers.py": "(changes_nothing and wsgi) or commits_a_change or merges_and",
        "../requests/test_own_connection.py": "is_marked or is_open",
        "../requests/test_beside_the_request.py": "several_threads",
    },
}
"""The tests by driver and file, as ``pytest -k`` takes them."""


@outermost
@pytest.mark.timeout(900)  # for a busy machine: each test in there has a limit of its own
@pytest.mark.parametrize("driver", AGAIN)
def test_the_backend_tests_pass_on_postgresql(driver: str) -> None:
    run_again(Path(__file__).parent, driver, AGAIN[driver])
