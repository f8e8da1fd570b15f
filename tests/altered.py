"""Changes settings of a server of PostgreSQL for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any


@contextmanager
def altered(pair: Any, server: str = "master", **settings: str) -> Iterator[None]:
    """Change settings while a block runs. The server has told all its processes to read them."""
    _run(pair, server, [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()])
    try:
        yield
    finally:
        _run(pair, server, [f"ALTER SYSTEM RESET {name}" for name in settings])


def _run(pair: Any, server: str, statements: list[str]) -> None:
    with closing(pair.admin(server)) as admin:
        for sql in (*statements, "SELECT pg_reload_conf()"):
            admin.execute(sql)
    pair.admin(server).close()  # the server signals its processes before it accepts another session


@contextmanager
def remote_apply(pair: Any) -> Iterator[None]:
    """Let each commit on the master wait until a slave has applied it."""
    asked = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
    with altered(pair, synchronous_commit="remote_apply", synchronous_standby_names="*"):
        with closing(pair.admin()) as admin:
            while not admin.execute(asked).rowcount:
                pass
            admin.execute("CHECKPOINT")  # its process has read the settings, too
        yield
