"""Sessions on a PostgreSQL pair, with psycopg and psycopg2, beyond what holds for every database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, func, insert, select, text
from sqlalchemy.exc import NotSupportedError
from sqlalchemy.orm import sessionmaker
from tests.bouncer import DROPS_OPTIONS, bouncers
from tests.round_trips import RoundTrips
from tests.test_sqlalchemy.conftest import Message, Shop, address

from replswitch import MASTER, SLAVE, ConfigurationError, SlaveWriteError, carry, resume
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import PostgreSQLPair, Proxy

Make = Callable[..., Shop]

pytestmark = pytest.mark.parametrize("driver", ["postgresql-psycopg", "postgresql-psycopg2"], indirect=True)


def number(session: Any) -> int:
    return session.scalar(select(func.count(Message.id))) or 0


@pytest.mark.parametrize("ours", [False, True], ids=["stock", "replicated"])
def test_p1_the_position_of_a_commit_of_a_session_costs_no_round_trip(
    replicated_pair: PostgreSQLPair, urls: list[str], driver: str, ours: bool
) -> None:
    with Proxy(replicated_pair.master["port"]) as proxy:
        master = create_engine(address({**replicated_pair.master, "port": proxy.port}, driver))
        if ours:
            replicate(master, [create_engine(urls[1])])
        factory = sessionmaker(master, class_=RoutingSession) if ours else sessionmaker(master)
        with factory() as session:
            session.connection()  # the pool has it

            def write() -> None:
                session.execute(insert(Message).values(body="x"))
                session.commit()

            joined = ours and driver == "psycopg"  # BEGIN is sent with the INSERT
            assert RoundTrips(proxy)(write) == (2 if joined else 3)  # BEGIN, INSERT, COMMIT
        master.dispose()


def test_m1_a_commit_without_a_write_makes_no_marker(shop: Shop) -> None:
    with resume(""), use_master(), shop.Session() as session:
        assert number(session) == 0
        session.commit()
        session.commit()
        assert carry() == ""


@pytest.mark.parametrize("mode", ["values_only", "values_plus_batch"])
def test_m1_an_insert_of_many_rows_is_recorded(
    make: Make, replicated_pair: PostgreSQLPair, driver: str, mode: str
) -> None:
    shop = make(engine={"executemany_mode": mode} if driver == "psycopg2" else {"insertmanyvalues_page_size": 2})
    replicated_pair.stop_slave()
    with resume(""), use_master(), shop.Session() as session:
        session.execute(insert(Message), [{"body": body} for body in "abcde"])
        session.add_all(Message(body=body) for body in "fgh")
        session.connection().exec_driver_sql("UPDATE message SET body = %s WHERE body = %s", [("x", "a"), ("y", "b")])
        session.commit()
        with use_slave(), shop.Session() as other:
            assert number(other) == 8


def test_m1_each_statement_in_autocommit_mode_is_recorded(make: Make, replicated_pair: PostgreSQLPair) -> None:
    shop = make(engine={"isolation_level": "AUTOCOMMIT"})
    replicated_pair.stop_slave()
    with resume(""), use_master(), shop.Session() as session:
        session.execute(insert(Message).values(body="a"))
        token = carry()
    assert '"postgresql:' in token
    with resume(token), use_slave(), shop.Session() as session:
        assert number(session) == 1
    assert shop.took()[-1] == MASTER


def test_m1_after_autocommit_mode_no_transaction_stays_open_in_the_pool(shop: Shop) -> None:
    with resume(""), use_master():
        with shop.master.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("INSERT INTO message (body) VALUES ('a')")
        assert carry() != ""
        with shop.master.connect() as connection:
            assert not shop.db.driver.in_transaction(connection.connection.dbapi_connection)


@pytest.mark.parametrize("state", [use_master, use_slave])
def test_s6_a_stream_is_read_in_pieces(shop: Shop, replicated_pair: PostgreSQLPair, state: Any) -> None:
    with use_master(), shop.Session() as session:
        session.execute(insert(Message), [{"body": str(number)} for number in range(50)])
        session.commit()
    replicated_pair.wait_caught_up()
    shop.took()
    with resume(""), state(), shop.Session() as session:
        rows = session.scalars(select(Message.body).order_by(Message.id).execution_options(yield_per=7))
        assert [next(rows), *rows] == [str(number) for number in range(50)]
        session.commit()
        assert carry() == ""
    assert set(shop.took()) == {MASTER if state is use_master else SLAVE}


def test_s8_a_refused_savepoint_moves_with_its_transaction(shop: Shop) -> None:
    with resume(""), use_slave(), shop.Session() as session:
        with session.begin_nested():
            session.add(Message(body="a"))
        session.commit()
        assert session.scalars(select(Message.body)).all() == ["a"]


def test_s8_a_transaction_that_has_read_is_not_moved_and_can_be_rolled_back(shop: Shop) -> None:
    with resume(""), use_slave(), shop.Session() as session:
        number(session)
        with pytest.raises(SlaveWriteError):
            session.execute(text("SELECT * FROM message FOR UPDATE"))
        session.rollback()
        assert number(session) == 0


def test_f1_with_pre_ping_no_read_fails_after_the_server_has_ended_a_session(
    make: Make, replicated_pair: PostgreSQLPair
) -> None:
    shop = make(engine={"pool_pre_ping": True})
    for _ in range(2):
        with resume(""), use_slave(), shop.Session() as session:
            assert number(session) == 0
        replicated_pair.kill("slave")
        replicated_pair.start("slave")


def test_f1_a_serializable_transaction_is_read_on_the_master(shop: Shop) -> None:
    session_of = sessionmaker(shop.master.execution_options(isolation_level="SERIALIZABLE"), class_=RoutingSession)
    with resume(""), use_slave(), session_of() as session:
        assert number(session) == 0
        assert session.scalar(text("SHOW transaction_isolation")) == "serializable"
        assert shop.took()[-1] == MASTER


def test_an_isolation_level_that_a_slave_does_not_support_raises_instead_of_a_read_on_the_master(shop: Shop) -> None:
    with resume(""), use_slave(), shop.Session() as session:
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        with pytest.raises(NotSupportedError, match="serializable"):
            number(session)
    assert set(shop.took()) == {SLAVE}


def test_serializable_engines_of_slaves_are_refused(urls: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="REPEATABLE READ"):
        replicate(create_engine(urls[0]), [create_engine(urls[1], isolation_level="SERIALIZABLE")])


def test_a_two_phase_commit_is_refused(shop: Shop) -> None:
    dbapi = shop.master.dialect.loaded_dbapi
    with shop.master.connect() as connection:
        # Not begin_twophase(), which does not call this method in older versions of SQLAlchemy.
        raw: Any = connection.connection
        with pytest.raises(dbapi.NotSupportedError, match="no two-phase commit"):
            raw.tpc_begin("transaction")


def test_s7_links_to_the_master_are_read_only_without_slaves(make: Make) -> None:
    shop = make(slaves=0)
    with resume(""), use_slave(), shop.Session() as session:
        session.execute(insert(Message).values(body="a"))
        session.commit()
        assert shop.took() == [SLAVE, MASTER]


@pytest.mark.parametrize("slaves", [0, 1])
@pytest.mark.parametrize("autocommit", [False, True], ids=["transactions", "autocommit"])
@pytest.mark.parametrize("value", [False, True], ids=["set to False", "reset after True"])
def test_s7_a_link_of_slave_state_stays_read_only_after_postgresql_readonly(
    make: Make, slaves: int, autocommit: bool, value: bool
) -> None:
    shop = make(slaves=slaves, engine={"isolation_level": "AUTOCOMMIT"} if autocommit else {})
    for body in "ab":
        with resume(""), use_slave(), shop.Session() as session:
            connection = session.connection(execution_options={"postgresql_readonly": value})
            assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
        with resume(""), use_slave(), shop.Session() as session:  # the pool has reset the connection
            session.execute(insert(Message).values(body=body))
            session.commit()
            assert shop.took()[-2:] == [SLAVE, MASTER]
            assert carry() != ""


def test_m1_behind_pgbouncer_visitors_see_their_own_writes(
    urls: list[str], replicated_pair: PostgreSQLPair, driver: str
) -> None:
    pair = replicated_pair
    with bouncers(pair, **DROPS_OPTIONS) as ports:
        servers = [{**server, "port": port} for server, port in zip((pair.master, *pair.slaves), ports, strict=True)]
        master, slave = (create_engine(address(server, driver)) for server in servers)
        shop = Shop(master, [slave])
        with resume(""), use_slave(), shop.Session() as session:
            assert number(session) == 0
        assert shop.took() == [SLAVE]
        pair.stop_slave()
        for count in range(12):  # often enough for statements that psycopg would prepare
            with resume(""), use_slave(), shop.Session() as session:
                session.execute(insert(Message).values(body="x"))
                session.commit()
                token = carry()
            assert '"postgresql:' in token
            with resume(token), use_slave(), shop.Session() as session:
                assert number(session) == count + 1
        shop.close()


@pytest.mark.parametrize("sslmode", ["require", "wrong"])
def test_f4_a_slave_with_a_wrong_sslmode_leaves_rotation_with_one_log_line(
    urls: list[str], sslmode: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(create_engine(urls[0]), [create_engine(urls[1], connect_args={"sslmode": sslmode})])
    for _ in range(3):
        with resume(""), use_slave(), shop.Session() as session:
            assert number(session) == 0
    assert shop.took() == [MASTER] * 3
    (line,) = [record.getMessage() for record in caplog.records if "out of rotation" in record.getMessage()]
    assert "SSL was required" in line or 'invalid sslmode value: "wrong"' in line
    shop.close()
