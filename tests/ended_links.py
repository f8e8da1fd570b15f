"""Ends connections from the server's side, as an administrator, an idle timeout or a restart does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pymysql

from replswitch.testing import PostgreSQLPair

UNKNOWN_THREAD = 1094


def kill(pair: Any, server: str, *links: int) -> None:
    """End connections, and return when the server has closed them.

    Args:
        pair: the servers, of MariaDB, MySQL or PostgreSQL.
        server: the name of the server.
        links: the numbers that the server has for the connections. They may have ended already.
    """
    with closing(pair.admin(server)) as admin:
        for link in links:
            if isinstance(pair, PostgreSQLPair):
                admin.execute("SELECT pg_terminate_backend(%s, 60000)", (link,))
            else:
                _kill_until_it_is_unknown(admin, link)


def _kill_until_it_is_unknown(admin: Any, link: int) -> None:
    """End a connection. The statement KILL does not wait for its end, and the server forgets it after it is closed."""
    with admin.cursor() as cursor:
        while True:
            try:
                cursor.execute(f"KILL {link}")
            except pymysql.OperationalError as error:
                if error.args[0] == UNKNOWN_THREAD:
                    return
                raise
            time.sleep(0.002)


@contextmanager
def killed_while_it_sleeps(pair: Any, server: str, link: int) -> Iterator[str]:
    """End a connection while its statement in the block runs.

    Yields:
        an expression for the statement. It sleeps on this connection until it is killed; elsewhere it is 0 at once.
    """
    with while_it_sleeps(pair, server, link, partial(kill, pair, server, link)) as sleep:
        yield sleep


@contextmanager
def while_it_sleeps(pair: Any, server: str, link: int, act: Callable[[], object]) -> Iterator[str]:
    """Call a function in another thread while a statement in the block runs.

    Args:
        pair: the servers.
        server: the name of the server.
        link: the number that the server has for the connection of the statement.
        act: the function.

    Yields:
        an expression for the statement. It sleeps on this connection for a minute; elsewhere it is 0 at once.
    """
    if isinstance(pair, PostgreSQLPair):
        asked = "SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        sleep = f"(SELECT 0 FROM pg_sleep(CASE WHEN pg_backend_pid() = {link} THEN 60 ELSE 0 END))"
    else:
        asked = "SELECT id FROM information_schema.processlist WHERE id = %s AND state = 'User sleep'"
        here = f"CONNECTION_ID() = {link} AND @@server_id = {pair.names.index(server) + 1}"
        sleep = f"SLEEP(CASE WHEN {here} THEN 60 ELSE 0 END)"
    over = threading.Event()

    def act_when_it_sleeps() -> None:
        with closing(pair.admin(server)) as admin, admin.cursor() as cursor:
            cursor.execute(asked, (link,))
            while not cursor.fetchall():
                assert not over.wait(0.005), "the statement has ended without sleeping"
                cursor.execute(asked, (link,))
        act()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act_when_it_sleeps)
        try:
            yield sleep
        finally:
            over.set()
        acting.result()
