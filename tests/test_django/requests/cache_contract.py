"""Run Django's own tests of its database cache on ours. A script; its argument is the folder of Django's tests."""

from __future__ import annotations

import sys
import unittest
from typing import Any

import django
from django.conf import settings

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "cache"]
    django.setup()

    from cache.tests import (  # type: ignore[import-not-found]  # in Django's sdist
        DBCacheTests,
        caches_setting_for_tests,
    )
    from django.db import connection
    from django.test import override_settings
    from django.test.runner import DiscoverRunner

    ours = caches_setting_for_tests(BACKEND="django_replswitch.cache.DatabaseCache", LOCATION="test cache table")

    class InSlaveState:
        def setUp(self) -> None:
            super().setUp()  # type: ignore[misc]  # creates the table, and no request is there that could wait for it
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@gtid_binlog_pos")
                position = cursor.fetchone()
            with connection.use_slave(), connection.cursor() as cursor:  # type: ignore[attr-defined]
                cursor.execute("SELECT MASTER_GTID_WAIT(%s, 30)", position)
                assert cursor.fetchone() == (0,), "the slave does not catch up"
            connection.use_slave()  # type: ignore[attr-defined]  # a method of our backend
            self.addCleanup(connection.revert)  # type: ignore[attr-defined]

    @override_settings(CACHES=ours)
    class Cache(DBCacheTests):  # type: ignore[misc]
        pass

    @override_settings(CACHES=ours)
    class CacheInSlaveState(InSlaveState, DBCacheTests):  # type: ignore[misc]
        pass

    runner = DiscoverRunner(verbosity=0, interactive=False)
    databases = runner.setup_databases()
    cases: tuple[Any, ...] = (Cache, CacheInSlaveState)
    suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases))
    result = unittest.TestResult()
    suite.run(result)
    runner.teardown_databases(databases)
    for test, text in result.errors + result.failures:
        print(test, text, sep="\n")
    print(f"{result.testsRun} run, {len(result.errors + result.failures)} failed")
