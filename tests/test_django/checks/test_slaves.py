"""SLAVES as URLs, and as dictionaries that other packages make from URLs."""

from __future__ import annotations

from typing import Any

import dj_database_url
import environ
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import load_backend
from tests.behind_name import NAME, Names

from django_replswitch import checks
from django_replswitch.servers import merged, servers_of

MASTER = {
    "ENGINE": "django_replswitch.backends.mysql",
    "HOST": "master.db",
    "PORT": "3307",
    "NAME": "shop",
    "USER": "board",
    "PASSWORD": "s3cret",
    "OPTIONS": {"charset": "utf8mb4"},
}
URL = "mysql://slave.db"
WHOLE = "mysql://reader:p%40ss@slave.db:3308/shop2"
OF_MASTER = {"HOST": "slave.db", "PORT": "3307", "NAME": "shop", "USER": "board", "PASSWORD": "s3cret"}
OF_SLAVE = {"HOST": "slave.db", "PORT": "3308", "NAME": "shop2", "USER": "reader", "PASSWORD": "p@ss"}


def slaves(given: object, **changes: Any) -> list[dict[str, Any]]:
    """The settings with which each slave is opened."""
    settings = {**MASTER, **changes, "SLAVES": given}
    return [merged(server, settings) for server in servers_of(settings, "default").slaves]


@pytest.mark.parametrize(
    "made", [str, dj_database_url.parse, environ.Env.db_url_config], ids=["url", "dj_database_url", "environ"]
)
@pytest.mark.parametrize(("url", "expected"), [(URL, OF_MASTER), (WHOLE, OF_SLAVE)])
def test_settings_that_the_url_of_a_slave_leaves_out_are_those_of_the_master(
    made: Any, url: str, expected: dict[str, str]
) -> None:
    (slave,) = slaves([made(url)])
    assert {key: str(slave[key]) for key in expected} == expected


@pytest.mark.parametrize(
    "made", [str, dj_database_url.parse, environ.Env.db_url_config], ids=["url", "dj_database_url", "environ"]
)
def test_the_checks_accept_a_slave_given_as_a_url(made: Any, use_databases: Any) -> None:
    use_databases(default={**MASTER, "SLAVES": [made(WHOLE)]})
    assert checks.check_slaves(None) == []


@pytest.mark.parametrize(("text", "hosts"), [("", []), (f"{URL}\n{WHOLE}", ["slave.db", "slave.db"])])
def test_a_string_is_a_list_of_urls(text: str, hosts: list[str]) -> None:
    settings = {**MASTER, "SLAVES": text}
    servers = servers_of(settings, "default")
    assert [server.source.get("HOST") for server in servers.slaves if server.source] == hosts


def test_options_of_a_url_are_added_to_those_of_the_alias() -> None:
    (slave,) = slaves([f"{URL}?read_timeout=5&weight=2"])
    assert slave["OPTIONS"] == {"charset": "utf8mb4", "read_timeout": 5}
    assert slave["WEIGHT"] == 2


@pytest.mark.parametrize(
    "given",
    [
        {"HOST": NAME, "RESOLVE": True},
        f"mysql://{NAME}?resolve=true",
        dj_database_url.parse(f"mysql://{NAME}?resolve=true&weight=2"),
        environ.Env.db_url_config(f"mysql://{NAME}?resolve=true"),
    ],
    ids=["dictionary", "url", "dj_database_url", "environ"],
)
def test_f7_each_address_of_a_host_with_resolve_is_a_slave(
    given: Any, monkeypatch: pytest.MonkeyPatch, use_databases: Any
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", Names("10.0.0.7", "10.0.0.8"))
    settings: dict[str, Any] = {**MASTER, "SLAVES": [given, {"HOST": "slave.db"}]}
    servers = servers_of(settings, "default")
    assert [server.name for server in servers.slaves] == ["slave.db:3307"], "nothing is looked up before the first read"
    servers.look_up()
    assert [server.name for server in servers.slaves] == [
        f"{NAME} (10.0.0.7:3307)",
        f"{NAME} (10.0.0.8:3307)",
        "slave.db:3307",
    ]
    opened = merged(servers.slaves[0], settings)
    assert (opened["HOST"], opened["OPTIONS"]) == (NAME, {**opened["OPTIONS"], "hostaddr": "10.0.0.7"})
    assert "resolve" not in opened["OPTIONS"]
    use_databases(default=settings)
    assert checks.check_slaves(None) == []


@pytest.mark.parametrize(
    ("changes", "slave", "message"),
    [
        (
            {},
            {"HOST": NAME, "RESOLVE": "yes"},
            r'DATABASES\["default"\]\["SLAVES"\]\[0\]: RESOLVE is \'yes\'. It must be',
        ),
        ({}, {"HOST": NAME, "OPTIONS": {"resolve": "perhaps"}, "ENGINE": "x"}, 'must be "true" or "false"'),
        ({"RESOLVE": True}, {"HOST": NAME}, r'DATABASES\["default"\]: RESOLVE is True. A master has one address'),
        ({}, {"HOST": "/run/mysqld/mysqld.sock", "RESOLVE": True}, "RESOLVE needs a host name to look up"),
        (
            {"ENGINE": "django_replswitch.backends.sqlite3", "NAME": "m.db", "OPTIONS": {}},
            {"NAME": "s.db", "RESOLVE": True},
            "RESOLVE does not work with sqlite3",
        ),
    ],
)
def test_f7_a_resolve_that_cannot_work_is_refused(
    changes: dict[str, Any], slave: dict[str, Any], message: str, use_databases: Any
) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        slaves([slave], **changes)
    use_databases(default={**MASTER, **changes, "SLAVES": [slave]})
    (found,) = checks.check_slaves(None)
    assert found.id == "replswitch.E002"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["postgresql://u:hunter2@slave.db"], r'SLAVES"\]\[0\] is a URL of postgresql, but the ENGINE of the alias is'),
        (["mysql://u:hunter2#@slave.db"], r'SLAVES"\]\[0\]` contains the character "#"'),
        ("hunter2", r'SLAVES"\]\[0\]` is a string, but not the URL of a database'),
        ([7], r'SLAVES"\] must be a list with a dictionary of settings or a URL for each slave'),
        (None, r'SLAVES"\] must be a list'),
    ],
)
def test_a_wrong_slave_is_refused_without_its_password(given: object, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message) as caught:
        slaves(given)
    assert "hunter2" not in str(caught.value)


def test_a_backend_of_the_projects_own_accepts_every_url() -> None:
    (slave,) = slaves(["postgresql://slave.db"], ENGINE="project.backend")
    assert slave["HOST"] == "slave.db"


SOCKET = "/run/mysqld/slave.sock"
NAMED = "mysql://reader:p%40ss@localhost/shop2?unix_socket=/run/mysqld/slave.sock"
AS_HOST = "mysql://reader:p%40ss@%2Frun%2Fmysqld%2Fslave.sock/shop2"
WITHOUT_HOST = "mysql://reader:p%40ss@/shop2?unix_socket=/run/mysqld/slave.sock"

OF_SOCKETS = [
    NAMED,
    AS_HOST,
    WITHOUT_HOST,
    dj_database_url.parse(NAMED),
    dj_database_url.parse(AS_HOST),
    dj_database_url.parse(WITHOUT_HOST),
    environ.Env.db_url_config(NAMED),
    environ.Env.db_url_config(WITHOUT_HOST),
    {"HOST": SOCKET},
    {"OPTIONS": {"unix_socket": SOCKET}},
    {"HOST": "localhost", "OPTIONS": {"unix_socket": SOCKET}},
]

OF_MASTERS = {
    "host": {},
    "host_that_is_a_socket": {"HOST": "/run/mysqld/master.sock", "PORT": ""},
    "socket_in_options": {"HOST": "", "PORT": "", "OPTIONS": {"unix_socket": "/run/mysqld/master.sock"}},
    "dj_database_url": dj_database_url.parse("mysql://u:p@localhost/shop?unix_socket=/run/mysqld/master.sock"),
}


def opened(server: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Where Django's backend connects to, with the settings of a server."""
    defaults: dict[str, Any] = {"ATOMIC_REQUESTS": False, "TIME_ZONE": None, "OPTIONS": {}}
    wrapper: Any = load_backend(settings["ENGINE"]).DatabaseWrapper
    found = wrapper.stock({**defaults, **merged(server, settings)}, "default").get_connection_params()
    return {key: found[key] for key in ("host", "unix_socket") if key in found}


@pytest.mark.parametrize("of_master", OF_MASTERS.values(), ids=OF_MASTERS)
@pytest.mark.parametrize("given", OF_SOCKETS)
def test_a_slave_with_a_socket_connects_to_its_socket_and_is_named_by_it(given: Any, of_master: dict[str, Any]) -> None:
    settings: dict[str, Any] = {**MASTER, **of_master, "ENGINE": MASTER["ENGINE"], "SLAVES": [given]}
    (slave,) = servers_of(settings, "default").slaves
    found = opened(slave, settings)
    assert found["unix_socket"] == SOCKET
    assert found.get("host", "localhost") == "localhost", "mysqlclient would connect to this host instead"
    assert slave.name == SOCKET


@pytest.mark.parametrize("of_master", OF_MASTERS.values(), ids=OF_MASTERS)
@pytest.mark.parametrize("given", [{"HOST": "slave.db"}, URL, f"{URL}?read_timeout=5", dj_database_url.parse(URL)])
def test_a_slave_with_a_host_does_not_connect_to_the_socket_of_the_master(
    given: Any, of_master: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {**MASTER, **of_master, "ENGINE": MASTER["ENGINE"], "SLAVES": [given]}
    (slave,) = servers_of(settings, "default").slaves
    assert opened(slave, settings) == {"host": "slave.db"}
    assert slave.name.partition(":")[0] == "slave.db"


@pytest.mark.parametrize(
    ("of_master", "name"),
    [*zip(OF_MASTERS.values(), ["master.db:3307", *["/run/mysqld/master.sock"] * 3], strict=True)],
    ids=OF_MASTERS,
)
def test_a_master_with_a_socket_is_named_by_it(of_master: dict[str, Any], name: str) -> None:
    assert servers_of({**MASTER, **of_master, "ENGINE": MASTER["ENGINE"]}, "default").master.name == name


def test_two_slaves_in_one_folder_of_sockets_of_postgresql_are_named_by_their_ports() -> None:
    settings = {**MASTER, "ENGINE": "django_replswitch.backends.postgresql", "OPTIONS": {}}
    given = [{"HOST": "/run/postgresql", "PORT": "5433"}, "postgresql://%2Frun%2Fpostgresql:5434"]
    names = [server.name for server in servers_of({**settings, "SLAVES": given}, "default").slaves]
    assert names == ["/run/postgresql:5433", "/run/postgresql:5434"]
