"""The checks that look at the settings alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.core.cache.backends.db import DatabaseCache as StockCache
from django.core.checks import CheckMessage
from django.test import override_settings

from django_replswitch import checks

from django.contrib.sessions.backends.db import SessionStore as StockStore  # isort: skip - Django is set up by conftest

MYSQL = "django_replswitch.backends.mysql"
MIDDLEWARE = "django_replswitch.middleware.ReplicationMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
SERVERS = {"ENGINE": MYSQL, "NAME": "shop", "HOST": "master.db", "SLAVES": [{"HOST": "slave.db"}]}
STOCK = {"ENGINE": "django.db.backends.mysql", "NAME": "shop", "HOST": "master.db"}
STOCK_CACHE = "django.core.cache.backends.db.DatabaseCache"
LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


class OwnStore(StockStore):
    """A session store of a project's own, in the module that SESSION_ENGINE names: this one."""


SessionStore = OwnStore


def found() -> list[CheckMessage]:
    """The messages of all checks except those of the servers."""
    every = (
        checks.check_slaves,
        checks.check_options,
        checks.check_middleware,
        checks.check_sessions,
        checks.check_caches,
        checks.check_predecessors,
    )
    return [message for check in every for message in check(None)]


def ids() -> list[str]:
    assert all(message.hint for message in found())
    return [str(message.id).removeprefix("replswitch.") for message in found()]


@pytest.fixture(autouse=True)
def right_settings(use_databases: Any) -> Any:
    """Settings that no check has anything to say about."""
    use_databases(default=dict(SERVERS))
    with override_settings(
        MIDDLEWARE=[MIDDLEWARE, SESSIONS], SESSION_ENGINE="django_replswitch.sessions", DATABASE_ROUTERS=[]
    ):
        yield


class TestNoFalseAlarms:
    def test_correct_settings_have_no_message(self) -> None:
        assert found() == []

    @pytest.mark.parametrize(
        "change",
        [
            {"SLAVES": []},
            {"SLAVES": ()},
            {"SLAVES": [{"PORT": 3307}]},
            {"SLAVES": [{"USER": "reader", "PASSWORD": "s3cret"}]},  # a proxy that routes by user
            {"SLAVES": [{"OPTIONS": {"unix_socket": "/run/slave.sock"}}]},
            {"ENGINE": "django_replswitch.backends.sqlite3", "SLAVES": [{"NAME": "/var/lib/slave.db"}]},
        ],
    )
    def test_correct_databases_have_no_message(self, use_databases: Any, change: dict[str, Any]) -> None:
        use_databases(default={**SERVERS, **change})
        assert found() == []

    def test_a_project_without_the_backend_has_no_message(
        self, use_databases: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_databases(default=dict(STOCK))
        with override_settings(
            MIDDLEWARE=[SESSIONS, "multidb.middleware.PinningRouterMiddleware"],
            SESSION_ENGINE="django.contrib.sessions.backends.db",
        ):
            monkeypatch.setattr(settings, "DATABASE_ROUTERS", ["multidb.PinningReplicaRouter"])
            assert found() == []

    @override_settings(ROOT_URLCONF=None, MIDDLEWARE=[])
    def test_a_project_without_urls_needs_no_middleware(self) -> None:
        assert found() == []

    @override_settings(MIDDLEWARE=["django.middleware.security.SecurityMiddleware", MIDDLEWARE, SESSIONS])
    def test_harmless_middleware_before_ours_has_no_message(self) -> None:
        assert found() == []

    @pytest.mark.parametrize(
        "engine",
        [
            "django_replswitch.sessions.cached_db",
            "django.contrib.sessions.backends.cache",
            "django.contrib.sessions.backends.signed_cookies",
        ],
    )
    def test_correct_session_engines_have_no_message(self, engine: str) -> None:
        with override_settings(SESSION_ENGINE=engine):
            assert found() == []

    def test_sessions_in_a_database_without_slaves_have_no_message(self, use_databases: Any) -> None:
        use_databases(default=dict(STOCK), shop=dict(SERVERS))
        with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"):
            assert found() == []

    @override_settings(MIDDLEWARE=[MIDDLEWARE], SESSION_ENGINE="django.contrib.sessions.backends.db")
    def test_a_project_without_session_middleware_needs_no_session_engine(self) -> None:
        assert found() == []


class TestSlaves:
    def test_slaves_of_another_engine_are_reported(self, use_databases: Any) -> None:
        for engine, ours in {"mysql": "mysql", "postgresql": "postgresql", "sqlite3": "sqlite3"}.items():
            old = {**STOCK, "ENGINE": f"django.db.backends.{engine}", "SLAVES": [{"HOST": "slave.db"}]}
            use_databases(default=dict(SERVERS), old=old)
            assert ids() == ["E001"]
            assert f'"django.db.backends.{engine}", ignores them' in found()[0].msg
            assert f'"django_replswitch.backends.{ours}"' in str(found()[0].hint)

    @pytest.mark.parametrize("slaves", [{"HOST": "slave.db"}, [7], None])
    def test_slaves_that_are_not_a_list_of_mappings_are_e002(self, use_databases: Any, slaves: object) -> None:
        use_databases(default={**SERVERS, "SLAVES": slaves})
        assert ids() == ["E002"]
        assert '[{"HOST": "slave1.db"}]' in found()[0].msg

    def test_m8_a_replicated_set_whose_name_is_not_a_string_is_reported(self, use_databases: Any) -> None:
        use_databases(default={**SERVERS, "REPLICATED_SET": 5})
        assert ids() == ["E002"]
        assert '["REPLICATED_SET"] is 5' in found()[0].msg

    @pytest.mark.parametrize("key", ["SLAVE", "slaves", "REPLICAS", "READ_REPLICA", "SALVES"])
    def test_a_misspelt_slaves_key_is_e003(self, use_databases: Any, key: str) -> None:
        database = {**SERVERS, key: [{"HOST": "slave.db"}]}
        del database["SLAVES"]
        use_databases(default=database)
        assert ids() == ["E003"]
        assert f'the unknown key "{key}"' in found()[0].msg

    @pytest.mark.parametrize(
        ("key", "hint"),
        [
            ("HOTS", 'Did you mean "HOST"?'),
            ("host", 'Did you mean "HOST"?'),
            (
                "COLOUR",
                (
                    "A slave can have HOST, PORT, NAME, USER, PASSWORD, OPTIONS, WEIGHT, RESOLVE. All other settings "
                    "are the master's."
                ),
            ),
        ],
    )
    def test_an_unknown_key_of_a_slave_is_reported(self, use_databases: Any, key: str, hint: str) -> None:
        use_databases(default={**SERVERS, "SLAVES": [{"HOST": "slave1.db"}, {"HOST": "slave2.db", key: 1}]})
        (message,) = found()
        assert message.id == "replswitch.E004"
        assert message.msg == f'DATABASES["default"]["SLAVES"][1] has the unknown key "{key}".'
        assert message.hint == hint

    def test_the_keys_that_dj_database_url_adds_to_a_slave_are_accepted(self, use_databases: Any) -> None:
        # What parse() returns for a URL without a query: with and without its argument conn_max_age.
        made = {
            "ENGINE": "django.db.backends.mysql",
            "NAME": "shop",
            "USER": "board",
            "PASSWORD": "s3cret",
            "HOST": "slave.db",
            "PORT": "",
            "CONN_MAX_AGE": 0,
            "CONN_HEALTH_CHECKS": False,
            "DISABLE_SERVER_SIDE_CURSORS": False,
        }
        same = {**made, "HOST": "slave2.db", "CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}
        alias = {**same, "ENGINE": MYSQL, "HOST": "master.db", "SLAVES": [made, same, {**made, "ENGINE": MYSQL}]}
        use_databases(default=alias)
        assert found() == []
        del alias["DISABLE_SERVER_SIDE_CURSORS"]
        use_databases(default=alias)
        assert found() == []

    @pytest.mark.parametrize(
        ("key", "value"),
        [("ENGINE", "django.db.backends.postgresql"), ("CONN_MAX_AGE", 60), ("ATOMIC_REQUESTS", True)],
    )
    def test_a_slave_with_another_value_than_its_alias_is_e004(
        self, use_databases: Any, key: str, value: object
    ) -> None:
        use_databases(default={**SERVERS, "SLAVES": [{"HOST": "slave.db", key: value}]})
        (message,) = found()
        assert message.id == "replswitch.E004"
        assert f'has "{key}": {value!r}, but DATABASES["default"] has another value.' in message.msg
        assert 'Set it only in DATABASES["default"] itself' in str(message.hint)

    def test_a_database_without_slaves_is_i001(self, use_databases: Any) -> None:
        use_databases(default={"ENGINE": MYSQL, "NAME": "shop"})
        assert ids() == ["I001"]

    @pytest.mark.parametrize(
        "slave", [{}, {"HOST": "master.db"}, {"PORT": "3306"}, {"PASSWORD": "s3cret"}, {"OPTIONS": {"charset": "utf8"}}]
    )
    def test_a_slave_with_the_address_of_the_master_is_w001(self, use_databases: Any, slave: dict[str, Any]) -> None:
        use_databases(default={**SERVERS, "SLAVES": [slave]})
        assert ids() == ["W001"]

    @pytest.mark.parametrize(
        "slave", [{"PORT": "3307"}, {"HOST": "localhost", "OPTIONS": {"unix_socket": "/run/m.sock"}}]
    )
    def test_a_slave_with_the_socket_of_the_master_is_w001(self, use_databases: Any, slave: dict[str, Any]) -> None:
        of_master = {"HOST": "localhost", "OPTIONS": {"unix_socket": "/run/m.sock"}}
        use_databases(default={**SERVERS, **of_master, "SLAVES": [slave]})
        assert ids() == ["W001"]


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"COOKIE_MAX_AGES": 30}, 'Did you mean "COOKIE_MAX_AGE"?'),
            ({"COOKIE_MAX_AGE": "30"}, "cookie_max_age"),
            ({"ON_SLAVE_WRITE": "raise"}, '"master", "error" or "force"'),
            ([("ENABLED", True)], "must be a dictionary"),
        ],
    )
    def test_wrong_options_are_reported(self, options: object, says: str) -> None:
        with override_settings(REPLSWITCH=options):
            assert ids() == ["E005"]
            assert says in found()[0].msg


class TestMiddleware:
    @override_settings(MIDDLEWARE=[SESSIONS])
    def test_a_missing_middleware_is_w002(self) -> None:
        assert ids() == ["W002"]

    @pytest.mark.parametrize("outside", [SESSIONS, "django.middleware.cache.UpdateCacheMiddleware"])
    def test_middleware_that_must_not_come_first_is_w003(self, outside: str) -> None:
        with override_settings(MIDDLEWARE=[outside, MIDDLEWARE]):
            assert ids() == ["W003"]
            assert f'"{outside}" comes before' in found()[0].msg


class TestSessions:
    @pytest.mark.parametrize(
        ("engine", "hint"),
        [
            ("django.contrib.sessions.backends.db", '"django_replswitch.sessions"'),
            ("django.contrib.sessions.backends.cached_db", '"django_replswitch.sessions.cached_db"'),
            (__name__, "django_replswitch.sessions.on_master.OnMaster"),
        ],
    )
    def test_a_session_engine_that_follows_the_state_is_reported(self, engine: str, hint: str) -> None:
        with override_settings(SESSION_ENGINE=engine):
            assert ids() == ["W004"]
            assert hint in str(found()[0].hint)


class OwnCache(StockCache):
    """A cache of a project's own."""


class TestCaches:
    @pytest.mark.parametrize("backend", [STOCK_CACHE, f"{__name__}.OwnCache"])
    def test_m1_a_database_cache_that_follows_the_state_is_w011(self, backend: str) -> None:
        with override_settings(CACHES={"default": LOCAL, "pages": {"BACKEND": backend, "LOCATION": "pages"}}):
            assert ids() == ["W011"]
            assert 'CACHES["pages"]' in found()[0].msg
            assert '"BACKEND": "django_replswitch.cache.DatabaseCache"' in str(found()[0].hint)

    @pytest.mark.parametrize("backend", ["django_replswitch.cache.DatabaseCache", LOCAL["BACKEND"]])
    def test_m1_a_cache_that_needs_no_change_has_no_message(self, backend: str) -> None:
        with override_settings(CACHES={"default": {"BACKEND": backend, "LOCATION": "pages"}}):
            assert found() == []

    def test_m1_a_database_cache_in_a_database_without_slaves_has_no_message(self, use_databases: Any) -> None:
        use_databases(default=dict(STOCK), shop=dict(SERVERS))
        with override_settings(CACHES={"default": {"BACKEND": STOCK_CACHE, "LOCATION": "pages"}}):
            assert found() == []


class TestPredecessors:
    @pytest.mark.parametrize("router", ["multidb.PinningReplicaRouter", "django_replicated.router.ReplicationRouter"])
    def test_the_router_of_a_predecessor_is_w005(self, router: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settings, "DATABASE_ROUTERS", [router])  # Django, told of the change, would import it
        assert [message.id for message in checks.check_predecessors(None)] == ["replswitch.W005"]

    @pytest.mark.parametrize(
        ("path", "package"),
        [
            ("multidb.middleware.PinningRouterMiddleware", "django-multidb-router"),
            ("django_replicated.middleware.ReplicationMiddleware", "django-replicated"),
        ],
    )
    def test_the_middleware_of_a_predecessor_is_reported(self, path: str, package: str) -> None:
        with override_settings(MIDDLEWARE=[MIDDLEWARE, path]):
            assert ids() == ["W006"]
            assert package in found()[0].msg
