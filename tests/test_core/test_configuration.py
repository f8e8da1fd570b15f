"""Bad input to connect(): one error of ours that says what, where, and the cure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import replswitch
from replswitch import ConfigurationError
from replswitch.drivers.mysql_settings import with_timeouts

MASTER = {"host": "master.db", "user": "shop"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"`master` is None\. It must be a URL, or a mapping"),
        ({"master": {}}, r"There is no master\. Give `master`"),
        ({"master": b"mysql://shop@master.db"}, r"`master` is a value of type bytes\. It must be a URL, or a mapping"),
        ({"master": MASTER, "slaves": {"host": "slave.db"}}, r"`slaves` is a value of type dict.*a list"),
        ({"master": MASTER, "slaves": "slave.db"}, r"`slaves\[0\]` is a string, but not the URL of a database"),
        ({"master": MASTER, "slaves": None}, r"`slaves` is None.*a list"),
        ({"master": MASTER, "slaves": [{}, "slave.db"]}, r"`slaves\[1\]` is a string, but not the URL"),
        ({"master": {"hots": "master.db"}}, r'Unknown setting of the master "hots"\. Did you mean "host"\?'),
        ({"master": MASTER, "slaves": [{"prot": 1}]}, r'Unknown setting of slave number 1 "prot".*"port"'),
        ({"master": MASTER, "slaves": [{"zzz": 1}]}, r'Unknown setting of slave number 1 "zzz"\. The known .*host'),
        ({"master": {**MASTER, "port": "3307"}}, r'"port" of the master is \'3307\'\. It must be a number, as in int'),
        ({"master": MASTER, "slaves": [{"port": 70000}]}, r'"port" of slave number 1 is 70000.*from 0 to 65535'),
        ({"master": MASTER, "slaves": [{"port": 3.5}]}, r'"port" of slave number 1 is 3\.5.*from 0 to 65535'),
        (
            {"master": {**MASTER, "port": ""}, "driver": "mysqlclient"},
            r'"port" of the master is \'\'. It must be a num',
        ),
        ({"master": {**MASTER, "connect_timeout": "3"}}, r'"connect_timeout" of the master is \'3\''),
        ({"master": {**MASTER, "ssl": "true"}}, r'"ssl" of the master is a text. It must be an object'),
        ({"master": {**MASTER, "cursorclass": "DictCursor"}}, r'"cursorclass" of the master is a text'),
        (
            {"master": {**MASTER, "charset": "nope"}},
            r'"charset" of the master is \'nope\', which PyMySQL does not know',
        ),
        ({"master": {**MASTER, "autocommit": True}}, r'"autocommit" of the master is set by replswitch'),
        (
            {"master": MASTER, "driver": "oracle"},
            r"Unknown driver 'oracle'.*'pymysql', 'mysqlclient', 'psycopg' and 'sqlite3'",
        ),
        (
            {"master": MASTER, "on_slave_write": "ignore"},
            r'"on_slave_write" is \'ignore\'.*"master", "error" or "force"',
        ),
        ({"master": MASTER, "on_slave_wirte": "error"}, r'option of connect\(\) "on_slave_wirte"\. Did you mean "on_s'),
        ({"master": MASTER, "pool_size": 0}, r'"pool_size" is 0\. It must be a whole number above 0'),
        ({"master": MASTER, "pool_size": "5"}, r'"pool_size" is \'5\''),
        ({"master": {"host": "x"}, "driver": "sqlite3"}, r'Unknown setting of the master "host"'),
        ({"master": {"timeout": 1}, "driver": "sqlite3"}, r'the master has no "database".*path of a file'),
        ({"master": {"database": ":memory:"}, "driver": "sqlite3"}, r"in memory.*Give a file"),
        ({"master": {"database": "x", "isolation_level": None}, "driver": "sqlite3"}, r'"isolation_level" of the ma'),
    ],
)
def test_a_wrong_argument_of_connect_is_refused_before_a_connection_is_opened(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replswitch.connect(**arguments)


@pytest.mark.parametrize(
    ("missing", "driver", "extra"), [("pymysql", "pymysql", "mysql"), ("MySQLdb", "mysqlclient", "mysqlclient")]
)
def test_a_missing_driver_is_named_with_the_extra_to_install(
    missing: str, driver: str, extra: str, tmp_path: Path
) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
import replswitch
try:
    replswitch.connect({{"database": {str(tmp_path / "a.db")!r}}}, driver={driver!r})
except replswitch.ConfigurationError as error:
    print(error)
"""
    path = [str(Path(replswitch.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"pip install 'replswitch[{extra}]'" in done.stdout
    assert "not installed" in done.stdout


def test_a_missing_sqlite_file_of_a_slave_is_not_created(tmp_path: Path) -> None:
    db = replswitch.connect(
        {"database": str(tmp_path / "master.db")}, [{"database": str(tmp_path / "slave.db")}], driver="sqlite3"
    )
    with db.use_slave(), db.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert not (tmp_path / "slave.db").exists()
    db.close()


def test_f5_a_slave_that_hangs_fails_before_a_worker_times_out() -> None:
    slave = with_timeouts({}, read_only=True)
    assert slave["read_timeout"] + slave["connect_timeout"] < 30
    assert slave["write_timeout"] == slave["read_timeout"]


def test_f5_the_master_has_no_read_time_out_by_default() -> None:
    assert set(with_timeouts({}, read_only=False)) == {"connect_timeout"}


def test_f5_time_outs_in_the_settings_replace_the_defaults() -> None:
    given = {"connect_timeout": 1, "read_timeout": 5}
    assert with_timeouts(given, read_only=True) == {**given, "write_timeout": 5}
    assert with_timeouts(given, read_only=False) == given
