"""What the jobs of the tests do: they write and read messages, in the test's process and in the workers."""

from __future__ import annotations

import json
import os
from typing import Any

import replswitch

SERVERS = "REPLSWITCH_TESTS_SERVERS"
"""The environment variable with the addresses of the pair."""

REDIS = "REPLSWITCH_TESTS_REDIS"
"""The environment variable with the path of Redis's socket."""

Seen = tuple[int, str, str]
"""How many messages with a number a job has seen, the side that served it, and the reason."""


def connect() -> replswitch.Connection:
    """Open the pair that the environment names."""
    servers: dict[str, Any] = json.loads(os.environ[SERVERS])
    db = replswitch.connect(servers["master"], servers["slaves"], driver="pymysql")
    db.debug = True
    return db


def insert(db: replswitch.Connection, number: int) -> None:
    """Write a message."""
    with db.cursor() as cursor:
        cursor.execute("INSERT INTO message (id, body) VALUES (%s, 'hello')", (number,))


def seen(db: replswitch.Connection, *numbers: int) -> Seen:
    """Count the messages with these numbers."""
    with db.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM message WHERE id IN ({', '.join(map(str, numbers))})")
        found = int(cursor.fetchone()[0])
    return found, db.queries[-1]["db"], db.queries[-1]["reason"]
