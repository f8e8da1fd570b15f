"""With PyMySQL instead of mysqlclient: it shows which commits wrote, so some markers differ.

Tests of this folder run once more in a process that has no mysqlclient, on a pair of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.test_django.again import outermost, run_again

AGAIN = {
    "test_situations.py": "get_after_a_post and wsgi",
    "test_markers.py": "(changes_nothing and wsgi) or commits_a_change or only_reads or (with_a_marker_sets and wsgi)",
    "test_streaming.py": "after_the_headers or only_read",
    "test_replay.py": "(counter and wsgi) or (Declined and wsgi) or catches",
    "test_own_connection.py": "is_marked or of_the_request",
    "test_waited_threads.py": "test_m1_a_commit_in_a_thread and wsgi",
    "test_within.py": "wsgi and not through_client",
    "test_sessions.py": "transaction or atomic",
    "test_peers.py": "(two_gets and wsgi) or reads_return or (a_get_that_writes and wsgi) or extra_statement"
    " or (killed and live)",
    "test_opentelemetry.py": "",
    "test_replicated_sets.py": "not asgi and not live",
}
"""The tests by file, as ``pytest -k`` takes them."""


@outermost
@pytest.mark.timeout(900)  # for a busy machine: each test in there has a limit of its own
def test_the_main_request_tests_pass_with_pymysql() -> None:
    run_again(Path(__file__).parent, "pymysql", AGAIN)
