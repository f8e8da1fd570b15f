"""Django's own tests of session stores, on this project's engines. A script; its argument is the folder of tests."""

from __future__ import annotations

import sys
import unittest
from typing import Any

import django
from django.conf import settings

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "sessions_tests"]
    django.setup()

    from django.db import connection
    from sessions_tests.tests import (  # type: ignore[import-not-found]  # in Django's sdist
        CacheDBSessionTests,
        DatabaseSessionTests,
        SessionMiddlewareTests,
    )

    from django_replswitch.sessions import SessionStore
    from django_replswitch.sessions.cached_db import SessionStore as CachedSessionStore

    class InSlaveState:
        """Runs each test in slave state."""

        def setUp(self) -> None:
            connection.use_slave()  # type: ignore[attr-defined]  # of our backend
            self.addCleanup(connection.revert)  # type: ignore[attr-defined]
            super().setUp()  # type: ignore[misc]

    class Database(DatabaseSessionTests):  # type: ignore[misc]
        backend = SessionStore
        session_engine = "django_replswitch.sessions"

    class DatabaseInSlaveState(InSlaveState, Database):
        pass

    class Cached(CacheDBSessionTests):  # type: ignore[misc]
        backend = CachedSessionStore

    class CachedInSlaveState(InSlaveState, Cached):
        pass

    cases: tuple[Any, ...] = (
        Database,
        DatabaseInSlaveState,
        Cached,
        CachedInSlaveState,
        SessionMiddlewareTests,  # with SESSION_ENGINE of the project
    )
    suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases))
    result = unittest.TestResult()
    suite.run(result)
    for test, text in result.errors + result.failures:
        print(test, text, sep="\n")
    print(f"{result.testsRun} run, {len(result.errors + result.failures)} failed")
