"""Servers behind Unix sockets: each spelling in a URL, the names of the servers, and connections to real servers."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine
from tests.conftest import Served

import replswitch
from replswitch import ConfigurationError, NoServerError
from replswitch.drivers import load_driver
from replswitch.report import servers_of, statuses
from replswitch.sqlalchemy import replicate

MYSQL = [
    "{scheme}://u:hunter2@localhost/shop?unix_socket={socket}",
    "{scheme}://u:hunter2@LOCALHOST/shop?unix_socket={socket}",
    "{scheme}://u:hunter2@localhost:3306/shop?unix_socket={socket}",
    "{scheme}://u:hunter2@/shop?unix_socket={socket}",
    "{scheme}://u:hunter2@/shop?host={socket}",
    "{scheme}://u:hunter2@{quoted}/shop",
    "{scheme}://u:hunter2@{quoted}/shop?unix_socket=",
]
POSTGRESQL = [
    "postgresql://u:hunter2@/shop?host={socket}",
    "postgresql://u:hunter2@localhost/shop?host={socket}",
    "postgresql://u:hunter2@/shop?unix_socket={socket}",
    "postgresql://u:hunter2@{quoted}/shop",
]
SOCKETS = ["/run/mysqld/mysqld.sock", "/cloudsql/project:region:instance", "/run/My sockets/a.sock"]


def spelled(url: str, socket: str, **more: Any) -> str:
    return url.format(socket=socket.replace(" ", "%20"), quoted=quoted(socket), **more)


def quoted(socket: str) -> str:
    return socket.replace("/", "%2F").replace(":", "%3A").replace(" ", "%20")


@pytest.mark.parametrize("socket", SOCKETS)
@pytest.mark.parametrize("url", MYSQL)
@pytest.mark.parametrize(("scheme", "driver"), [("mysql", "pymysql"), ("mysql+mysqldb", "mysqlclient")])
def test_each_spelling_of_a_socket_of_mysql_connects_to_the_socket(
    scheme: str, driver: str, url: str, socket: str
) -> None:
    pytest.importorskip("MySQLdb")
    made = spelled(url, socket, scheme=scheme)
    master, slave = servers(made, "mysql://slave.db")
    settings = dict(master.source.settings)
    settings.pop("port", None)  # the drivers ignore it
    assert settings == {"unix_socket": socket, "user": "u", "password": "hunter2", "database": "shop"}
    assert (master.name, slave.name) == (socket, "slave.db")
    assert "unix_socket" not in slave.source.settings
    _, slave = servers("mysql://u:hunter2@master.db:3307/shop", spelled(url, socket, scheme="mysql"), driver=driver)
    assert (slave.name, slave.source.settings["unix_socket"]) == (socket, socket)
    assert "host" not in slave.source.settings


@pytest.mark.parametrize("url", POSTGRESQL)
def test_each_spelling_of_a_socket_of_postgresql_connects_to_the_socket(url: str) -> None:
    folder = "/var/run/postgresql"
    master, slave = servers(spelled(url, folder), "postgresql://:5433")
    assert (master.source.settings["host"], master.name) == (folder, folder)
    assert (slave.source.settings["host"], slave.name) == (folder, f"{folder}:5433")


def servers(master: Any, slave: Any, **options: Any) -> tuple[Any, Any]:
    with replswitch.connect(master, [slave], **options) as db:
        (found,) = db.servers.slaves
        return db.servers.master, found


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mysql://u:hunter2@h/d?unix_socket=/a",
            r'"unix_socket" in `master` is a Unix socket.*a host that is not local',
        ),
        ("mysql://u:hunter2@127.0.0.1/d?unix_socket=/a", r"also has a host that is not localhost\. Leave one out"),
        ("mysql://u:hunter2@%2Fa/d?unix_socket=/b", r"also has another socket\. Leave one out"),
        ("mysql://u:hunter2@/d?unix_socket=/a&host=/b", r"also has another socket"),
        ("mysql://u:hunter2@/d?unix_socket=/a&unix_socket=/b", r"`master` contains an option twice"),
        ("mysql://u:hunter2@/d?unix_socket=a.sock", r'"unix_socket" in `master` must be the absolute path'),
        ("mysql://u@/d?unix_socket=hunter2", r'"unix_socket" in `master` must be the absolute path'),
        ("mysql://u:hunter2@h/d?host=i", r'"host" in `master` repeats a part of the URL'),
        ("postgresql://u:hunter2@h/d?host=/a", r'"host" in `master` is a Unix socket.*a host that is not localhost'),
        ("postgresql://u:hunter2@%2Fa/d?host=/b", r"also has another socket"),
        ("postgresql://u:hunter2@/d?host=/a&host=/b", r"`master` contains an option twice"),
    ],
)
def test_a_socket_and_another_place_are_refused_without_the_password(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        replswitch.connect(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("slave", ["mysql://:3307", {"port": 3307}], ids=["url", "settings"])
def test_a_slave_with_only_a_port_is_refused_if_the_master_has_a_socket_of_mysql(slave: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"`slaves\[0\]` has a port, but no host or socket of its own"):
        servers("mysql://u:p@localhost/shop?unix_socket=/run/m.sock", slave)


def test_m8_each_socket_has_a_set_of_its_own() -> None:
    urls = ["mysql://u@localhost/d?unix_socket=/run/a", "mysql://u@/d?unix_socket=/run/b", "mysql://u@localhost/d"]
    names = [replswitch.connect(url).database.set_name for url in urls]
    assert len(set(names)) == 3
    assert replswitch.connect("mysql://u@%2Frun%2Fa/d").database.set_name == names[0]


def test_a_server_of_mysqlclient_with_another_host_is_named_by_the_host_that_it_connects_to() -> None:
    driver = load_driver("mysqlclient")
    assert driver.address({"host": "10.0.0.7", "unix_socket": "/run/a"}) == "10.0.0.7"
    assert driver.address({"host": "localhost", "unix_socket": "/run/a"}) == "/run/a"
    assert load_driver("pymysql").address({"host": "10.0.0.7", "unix_socket": "/run/a"}) == "/run/a"


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mysql+mysqldb"])
def test_engines_of_sqlalchemy_are_named_by_their_sockets(scheme: str) -> None:
    pytest.importorskip("MySQLdb")
    engines = [create_engine(f"{scheme}://u:p@localhost/shop?unix_socket=/run/{name}.sock") for name in "ab"]
    switch = replicate(engines[0], engines[1:])
    assert [server.name for server in (switch.servers.master, *switch.servers.slaves)] == ["/run/a.sock", "/run/b.sock"]


@pytest.mark.parametrize(
    "served", ["mariadb", "mariadb-mysqlclient", "mysql", "postgresql", "postgresql-psycopg2"], indirect=True
)
@pytest.mark.parametrize("host", ["localhost", ""], ids=["localhost", "without_host"])
def test_urls_of_sockets_connect_to_the_servers_of_a_pair(served: Served, host: str) -> None:
    pair: Any = served.pair

    def ask(name: str, sql: str) -> Any:
        with closing(pair.admin(name)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    is_mysql = served.pair.driver == "pymysql"
    found = []
    for name, settings in (("master", pair.master), ("slave", pair.slaves[0])):
        if is_mysql:
            socket = ask(name, "SELECT @@socket")
            url = f"mysql://{settings['user']}:{settings['password']}@{host}/{pair.database}?unix_socket={socket}"
        else:  # only the superuser may use the socket
            folder = ask(name, "SHOW unix_socket_directories")
            url = f"postgresql://postgres:hunter2@{host}:{settings['port']}/{pair.database}?host={folder}"
            socket = f"{folder}:{settings['port']}"
        found.append((socket, url))
    (master_socket, master), (slave_socket, slave) = found
    which = "SELECT @@socket"
    if not is_mysql:
        which = "SELECT current_setting('unix_socket_directories') || ':' || current_setting('port')"
    with replswitch.connect(master, slave, driver=served.driver, debug=True) as db, db.cursor() as cursor:
        for use, socket in ((db.use_slave, slave_socket), (db.use_master, master_socket)):
            with use():
                cursor.execute(which)
                assert cursor.fetchone()[0] == socket
                assert db.queries[-1]["server"] == socket
        status = statuses(servers_of(db))
    assert [(each.server, each.problem) for each in status] == [(master_socket, None), (slave_socket, None)]
    assert status[1].replication == "running"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyMySQL 1.2.4 leaves its socket open
@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@localhost/d?unix_socket=/nowhere/m.sock",
        "mysql+mysqldb://u:hunter2@localhost/d?unix_socket=/nowhere/m.sock",
        "postgresql://u:hunter2@localhost/d?host=/nowhere",
    ],
)
def test_the_error_for_a_socket_that_does_not_exist_names_it_without_the_password(url: str) -> None:
    pytest.importorskip("MySQLdb")
    with replswitch.connect(url, downtime=0) as db, db.cursor() as cursor:
        with pytest.raises(NoServerError) as caught:
            cursor.execute("SELECT 1")
        (status, *_) = statuses(servers_of(db))
    assert "/nowhere" in str(caught.value)
    assert status.server.startswith("/nowhere")
    assert "hunter2" not in f"{caught.value!r} {status}"
