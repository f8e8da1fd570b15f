"""Django's own tests pass with our engine as they do with Django's. A file for each driver: each takes minutes."""

from __future__ import annotations

import pytest
from tests.django_suite.suite_script import passes_as_with_djangos_engine


@pytest.mark.timeout(900)
def test_django_s_own_tests_pass_with_pymysql_as_with_its_mysql_backend() -> None:
    # What depends on the driver; the SQL of querysets is tried with mysqlclient.
    passes_as_with_djangos_engine("pymysql", "basic", "transactions", "transaction_hooks", "backends")
