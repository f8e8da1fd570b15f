"""A deadlock on MariaDB, whose victim is the transaction of the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from replswitch.testing import MariaDBPair


@contextmanager
def deadlock(pair: MariaDBPair, update: str) -> Iterator[None]:
    """Let another transaction lock rows 2 to 4, and then wait for row 1. Lock row 1 and then row 2 in the block.

    The other transaction has changed more rows, so the server ends the transaction of the block.

    Args:
        pair: the servers.
        update: a statement that updates a table with a column ``id``, without its WHERE.
    """
    with closing(pair.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"{update} WHERE id >= 2")

        def wait_for_the_first() -> None:
            with pair.admin("master") as admin, admin.cursor() as asking:
                for _ in range(80):
                    time.sleep(0.2)  # InnoDB refreshes this table only if it was not read for a tenth of a second
                    asking.execute("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
                    if asking.fetchone()[0]:
                        break
            cursor.execute(f"{update} WHERE id = 1")

        waiting = threading.Thread(target=wait_for_the_first)
        waiting.start()
        yield
        waiting.join()
        cursor.execute("ROLLBACK")
