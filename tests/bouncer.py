"""PgBouncer in transaction mode, in front of the servers of a pair of PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from replswitch.testing.kept import Kept
from replswitch.testing.launch import free_port, run
from replswitch.testing.postgresql_programs import account

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def bouncer(settings: dict[str, Any], **more: str) -> Iterator[int]:
    """Start PgBouncer in front of a server; yield its port."""
    if PROGRAM is None:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail("CI is set, so this must not be skipped: PgBouncer is missing (tools/ensure-pgbouncer)")
        pytest.skip("PgBouncer is missing: tools/ensure-pgbouncer installs it")
    port = free_port()
    options = {"pool_mode": "transaction", "auth_type": "any", "default_pool_size": "2", "listen_port": str(port)}
    options |= {"listen_addr": "127.0.0.1", "unix_socket_dir": "", **more}
    target = " ".join(f"{name}={settings[name]}" for name in ("host", "port", "dbname", "user", "password"))
    lines = [f"{name} = {value}" for name, value in options.items()]
    with closing(Kept(account())) as kept:  # it refuses to run as root
        file = kept.folder / "pgbouncer.ini"
        file.write_text(f"[databases]\n{settings['dbname']} = {target}\n[pgbouncer]\n" + "\n".join(lines) + "\n")
        file.chmod(0o644)
        run(kept, "pgbouncer", [PROGRAM, str(file)], kept.folder / "log", ready=lambda: listens(port))
        yield port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


@contextmanager
def bouncers(pair: Any, **more: str) -> Iterator[list[int]]:
    """Start one PgBouncer for each server of a pair, the master's first; yield their ports.

    Args:
        pair: the servers.
        more: settings of PgBouncer.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(bouncer(settings, **more)) for settings in (pair.master, *pair.slaves)]


DROPS_OPTIONS = {"ignore_startup_parameters": "options"}
"""Let PgBouncer accept the setting that makes a connection read-only, and not pass it on."""
