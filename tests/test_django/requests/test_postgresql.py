"""Tests of this folder run again on PostgreSQL with psycopg, in a process of their own.

Those with psycopg2 run in the process of `tests/test_django/backend/test_postgresql.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.test_django.again import outermost, run_again

AGAIN = {
    "test_round_trips.py": "",
    "test_peers.py": "not asgi and not live and not killed_slave and not one_alias and not reads_return",
    "test_markers.py": "(changes_nothing and wsgi) or (session and wsgi)",
    "test_sessions.py": "transaction or atomic or (login and wsgi)",
    "test_streaming.py": "after_the_headers or only_read or earlier_chunks",
    "test_replay.py": "(counter and wsgi) or (Declined and wsgi) or (catches and wsgi)",
    "test_own_connection.py": "is_marked or is_open",
    "test_waited_threads.py": "test_m1_a_commit_in_a_thread and wsgi",
    "test_within.py": "wsgi and through_call",
    "test_opentelemetry.py": "",
    "test_replicated_sets.py": "not asgi and not live",
}
"""The tests by file, as ``pytest -k`` takes them."""


@outermost
@pytest.mark.timeout(900)  # for a busy machine: each test in there has a limit of its own
def test_the_main_request_tests_pass_on_postgresql() -> None:
    run_again(Path(__file__).parent, "psycopg", AGAIN)
