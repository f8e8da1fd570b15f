"""Servers as URLs: the settings that they mean, and no password in a message."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL
from tests.conftest import Served

import replswitch
from replswitch import ConfigurationError
from replswitch.drivers import load_driver
from replswitch.drivers.urls import parse_url, settings_of_url, split_urls

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@pytest.mark.parametrize(
    ("url", "driver", "settings"),
    [
        (
            "mysql://board:s3cret@master.db:3307/shop?charset=utf8mb4&connect_timeout=5",
            "pymysql",
            {
                "host": "master.db",
                "port": 3307,
                "user": "board",
                "password": "s3cret",
                "database": "shop",
                "charset": "utf8mb4",
                "connect_timeout": 5,
            },
        ),
        ("mysql://slave.db", "pymysql", {"host": "slave.db"}),
        ("MySQL://Slave.DB/", "pymysql", {"host": "Slave.DB"}),
        (" mysql://slave.db\n", "pymysql", {"host": "slave.db"}),
        (
            "mariadb://slave.db?weight=0.5&read_timeout=2.5",
            "pymysql",
            {"host": "slave.db", "weight": 0.5, "read_timeout": 2.5},
        ),
        ("mysql+mysqldb://slave.db?ssl_disabled=true", "mysqlclient", {"host": "slave.db", "ssl_disabled": True}),
        (
            "mysql+pymysql://u:p%40ss%2F%23%3F%25@h/d%20b",
            "pymysql",
            {"host": "h", "user": "u", "password": "p@ss/#?%", "database": "d b"},
        ),
        ("mysql://u:p@ss@h", "pymysql", {"host": "h", "user": "u", "password": "p@ss"}),
        ("mysql://[2001:db8::1]:3307", "pymysql", {"host": "2001:db8::1", "port": 3307}),
        ("mysql://[fe80::1%25eth0]", "pymysql", {"host": "fe80::1%eth0"}),
        ("postgresql://%2Frun%2Fmy%20sockets/shop", "psycopg", {"host": "/run/my sockets", "dbname": "shop"}),
        (
            "mysql:///shop?unix_socket=/run/mysqld.sock",
            "pymysql",
            {"unix_socket": "/run/mysqld.sock", "database": "shop"},
        ),
        (
            "mysql://u@%2Frun%2FMysqld.sock/shop",
            "pymysql",
            {"unix_socket": "/run/Mysqld.sock", "user": "u", "database": "shop"},
        ),
        (
            "postgresql://u:p@h:5433/shop?sslmode=require",
            "psycopg",
            {"host": "h", "port": 5433, "user": "u", "password": "p", "dbname": "shop", "sslmode": "require"},
        ),
        (
            "postgres://h?prepare_threshold=0&read_timeout=3",
            "psycopg",
            {"host": "h", "prepare_threshold": 0, "read_timeout": 3},
        ),
        ("postgresql+psycopg://a,b:5433/shop", "psycopg", {"host": "a,b", "port": ",5433", "dbname": "shop"}),
        (
            "postgresql:///shop?host=/run/postgresql&port=5433&user=u",
            "psycopg",
            {"host": "/run/postgresql", "port": 5433, "user": "u", "dbname": "shop"},
        ),
        ("sqlite:///shop.db?timeout=5", "sqlite3", {"database": "shop.db", "timeout": 5}),
        ("sqlite:////var/db/a%20b.db", "sqlite3", {"database": "/var/db/a b.db"}),
        ("sqlite:///file:///a.db?uri=true", "sqlite3", {"database": "file:///a.db", "uri": True}),
        ("SQLite:///file:/a.db?uri=true", "sqlite3", {"database": "file:/a.db", "uri": True}),
        ("postgresql://h?ssl=true", "psycopg", {"host": "h", "sslmode": "require"}),
    ],
)
def test_a_url_gives_the_settings_that_it_names_and_no_others(url: str, driver: str, settings: dict[str, Any]) -> None:
    assert parse_url(url, "master").driver == driver
    assert settings_of_url(url, load_driver(driver), "master") == settings


@given(user=WORDS, password=WORDS, host=st.sampled_from(["h", "h.db", "10.0.0.1"]))
def test_a_url_of_sqlalchemy_is_read_as_sqlalchemy_wrote_it(user: str, password: str, host: str) -> None:
    url = URL.create("mysql+pymysql", user, password, host, 3307, "shop")
    parts = parse_url(url.render_as_string(hide_password=False), "master")
    found = (parts.user, parts.password, parts.host, parts.port, parts.database)
    assert found == (user, password, host, "3307", "shop")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hunter2", r"not the URL of a database\. Write mysql://"),
        ("oracle://u:hunter2@h/d", r"not the URL of a database"),
        ("mysql:/u:hunter2@h/d", r"not the URL of a database"),
        ("mysql://u:hunter2#x@h/d", r'contains the character "#"\. .*"%23"'),
        ("mysql://u:hunter2/x@h/d", r'contains a "/" or "\?" before the host'),
        ("mysql://u:hunter2?x@h/d", r'contains a "/" or "\?" before the host'),
        ("mysql://u:1/hunter2@h/d", r'contains a "/" or "\?" before the host\. .*"%2F"'),
        ("mysql://u:?hunter2@h/d", r'contains a "/" or "\?" before the host'),
        ("postgresql://u:?hunter2@h/d", r'contains a "/" or "\?" before the host'),
        ("mysql://u:hunter2@h:1/d?port=99", r'option "port" in `master` repeats a part'),
        ("mysql://u@h/d?port=hunter2", r"The port in `master` is not a number"),
        ("mysql+://u:hunter2@h/d", r"not the URL of a database"),
        ("mysql://u:[hunter2@h/d", r"not a valid URL.*percent codes"),
        ("mysql://u:hunter2@h:99999/d", r"The port in `master` is not a number from 0 to 65535"),
        ("mysql://u:hunter2@a,b/d", r"has several hosts\. Only a URL of PostgreSQL"),
        ("mysql://u:hunter2@h/d?connect_timeout=soon", r'"connect_timeout" in `master` is not a number'),
        ("mysql://u:hunter2@h/d?connect_timeout=nan", r'"connect_timeout" in `master` is not a number'),
        ("mysql://u:hunter2@h/d?connect_timeout=", r'"connect_timeout" in `master` is not a number'),
        ("mysql://u:hunter2@h/d?ssl_disabled=maybe", r'"ssl_disabled" in `master` must be "true" or "false"'),
        ("mysql://u:hunter2@h/d?hots=1", r'Unknown setting of the master "hots"'),
        ("postgresql://u:hunter2@h/d?sslmod=require", r'Unknown setting of the master "sslmod"'),
        ("mysql+oursql://u:hunter2@h/d", r"Unknown driver 'oursql'"),
        ("mysql://u:hunter2@h/d?ssl=true", r'"ssl" in `master` cannot be a text.*as a dictionary.*ssl_ca, ssl_cert'),
        ("mysql://u:hunter2@h/d?cursorclass=DictCursor", r'"cursorclass" in `master` cannot be a text'),
        ("mysql://u:hunter2@h/d?charset=utf8mb4&charset=latin1", r"`master` contains an option twice"),
        ("mysql://u:hunter2@h/d?conv=x", r'"conv" in `master` cannot be a text'),
        ("postgresql://u:hunter2@h/d?context=x", r'"context" in `master` cannot be a text'),
        ("mysql://u:hunter2@a/d;mysql://u:hunter2@b/d", r'contains "://" twice\. .*white space or commas'),
        ("mysql://a;mysql://b", r'contains "://" twice'),
        ("mysql://u:hunter2@a;b/d", r"host in `master` contains the character ';'"),
        ("mysql://u:hunter2@ /d", r"host in `master` contains the character ' '"),
        ("mysql://u:hunter2@${HOST}/d", r"host in `master` contains the character '\{'"),
        # Python 3.11.2 refuses this URL itself.
        ("mysql://u:hunter2@[::1]3307/d", r"The port in `master` is not a number|`master` is not a valid URL"),
        ("sqlite:///file:///a.db;sqlite:///b.db", r'contains "://" twice'),
        ("sqlite://", r"names no file\. Write sqlite:///"),
        ("sqlite://shop.db", r"names no file"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        replswitch.connect(url)
    assert "hunter2" not in str(caught.value)


def test_a_slave_of_another_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"`slaves\[0\]` is a URL of postgresql\. The driver pymysql does not"):
        replswitch.connect("mysql://master.db", ["postgresql://slave.db"])


@pytest.mark.parametrize("url", ["mysql://", "mysql:///shop", "mysql://u@/shop?weight=2"])
def test_a_slave_url_without_a_host_and_without_a_difference_from_the_master_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"`slaves\[1\]` is a URL without a host and without a part that"):
        replswitch.connect("mysql://u@master.db/shop", ["mysql://slave.db", url])
    replswitch.connect("mysql://u@master.db/shop", ["mysql://:3307", "mysql:///shop_of_a_slave_in_a_proxy"]).close()


@pytest.mark.parametrize(
    "url",
    [
        *("mysql://u@master.db/shop", "mysql://u@/shop?unix_socket=/run/m.sock", "mysql://u@/shop"),
        *("postgresql:///shop", "postgresql:///shop?service=shop", "sqlite:///shop.db"),
    ],
)
def test_the_url_of_a_slave_may_be_the_url_of_the_master(url: str) -> None:
    replswitch.connect(url, url).close()


@pytest.mark.parametrize(
    ("master", "slave", "place"),
    [
        ({"unix_socket": "/run/m.sock"}, {"host": "slave.db"}, {"host": "slave.db"}),
        ({"host": "master.db"}, {"unix_socket": "/run/s.sock"}, {"unix_socket": "/run/s.sock"}),
        ("mysql://u@/shop?unix_socket=/run/m.sock", "mysql://slave.db", {"host": "slave.db"}),
        ({"host": "master.db"}, {"port": 3307}, {"host": "master.db"}),
    ],
)
def test_a_slave_with_a_host_or_socket_of_its_own_gets_neither_host_nor_socket_of_the_master(
    master: Any, slave: Any, place: dict[str, str]
) -> None:
    (server,) = replswitch.connect(master, [slave]).servers.slaves
    settings = server.source.settings
    assert {name: settings[name] for name in ("host", "unix_socket") if name in settings} == place


def test_a_url_that_names_another_driver_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'names the driver "pymysql", but `driver` is "mysqlclient"'):
        replswitch.connect("mysql+pymysql://master.db", driver="mysqlclient")


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" \n", []),
        ("mysql://a", ["mysql://a"]),
        ("mysql://a mysql://b", ["mysql://a", "mysql://b"]),
        ("mysql://a,mysql://b,", ["mysql://a", "mysql://b"]),
        ("mysql://a,,mysql://b", ["mysql://a", "mysql://b"]),
        ("\n  mysql://a ,\r\n\tmysql://b ,\n", ["mysql://a", "mysql://b"]),
        ("mysql://a, mysql+pymysql://b\n", ["mysql://a", "mysql+pymysql://b"]),
        ("postgresql://a,b/shop,postgresql://c", ["postgresql://a,b/shop", "postgresql://c"]),
        ("slave1,slave2 slave3", ["slave1", "slave2", "slave3"]),
    ],
)
def test_a_list_in_one_string_is_split(text: str, entries: list[str]) -> None:
    assert split_urls(text) == entries


@pytest.mark.parametrize(
    ("served", "scheme"),
    [
        *[("mariadb", "mariadb"), ("mariadb-mysqlclient", "mysql+mysqlclient"), ("mysql", "mysql")],
        *[("postgresql", "postgresql"), ("sqlite", "sqlite")],
    ],
    indirect=["served"],
)
def test_urls_connect_to_the_servers_of_a_pair(served: Served, scheme: str) -> None:
    pair = served.pair

    def url(server: dict[str, Any], *, whole: bool) -> str:
        if scheme == "sqlite":
            return f"sqlite:///{server['database']}"
        place = f"{server['host']}:{server['port']}"
        database = server.get("database") or server.get("dbname")
        who = f"{server['user']}:{quote(server.get('password') or '')}@"
        return f"{scheme}://{who}{place}/{database}" if whole else f"{scheme}://{place}"

    slaves = " ".join(url(slave, whole=False) for slave in pair.slaves)
    with replswitch.connect(url(pair.master, whole=True), slaves) as db:
        db.debug = True
        with db.use_slave(), db.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone()[0] == 1
        assert [query["db"] for query in db.queries] == ["slave"]
