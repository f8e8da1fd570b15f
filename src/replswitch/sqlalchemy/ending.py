"""How the transactions and the connections of an engine end.

The methods of the engine's dialect are replaced, for this engine only.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from sqlalchemy.event import listens_for

from replswitch.decision import MASTER, SLAVE
from replswitch.forked import keep_open
from replswitch.sqlalchemy.pooled import LINK

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from replswitch.drivers import Driver, Raw
    from replswitch.engine.servers import Link, Server

# The links that SQLAlchemy's drivers have opened, by the id of their connection.
_links: Final[WeakValueDictionary[int, Link]] = WeakValueDictionary()


def roll_back_quietly(engine: Engine, driver: Driver, server: Server) -> None:
    """Make an engine send no rollback that would do nothing, and ignore the error of a rollback on a lost connection.

    SQLAlchemy ends a session with a rollback, and the pool rolls back once more when it gets the connection back.

    If a connection is lost, the server itself rolls back. A session that has only read ends with a rollback, too, and
    the data that it has read are valid. So the error is ignored. On a slave, errors of a commit are ignored as well,
    because a slave has no writes to lose, and the session must still commit on the master.
    """
    dialect: Any = engine.dialect
    roll_back = dialect.do_rollback

    def end(raw: Any) -> None:
        if driver.is_rolled_back(raw.dbapi_connection):
            return
        try:
            roll_back(raw)
        except driver.module.Error as error:
            if server.state == MASTER and not driver.is_gone(error, raw.dbapi_connection):
                raise
            raw.invalidate(error)

    dialect.do_rollback = end
    if server.state == SLAVE:
        dialect.do_commit = end


def before_close(engine: Engine, record_write: Callable[[], object]) -> None:
    """Call ``record_write`` before an invalid connection is closed whose statements may have committed something.

    A procedure commits without an event of SQLAlchemy. Such commits are recorded when the connection goes back to the
    pool, which does not happen if the connection is lost, or if the task of a later statement is cancelled.
    """

    @listens_for(engine, "invalidate")
    def look(_: Raw, entry: ConnectionPoolEntry, __: BaseException | None) -> None:
        link: Link | None = entry.info.get(LINK)
        if link is not None and link.writes.has_written():
            record_write()


def leave_to_parent(engine: Engine) -> None:
    """After a fork, make an engine keep the parent's connections open, even if a pool of the child closes them."""
    dialect: Any = engine.dialect
    for name in ("do_close", "do_terminate"):
        setattr(dialect, name, partial(_close, getattr(dialect, name)))


def _close(close: Callable[[Raw], None], raw: Raw) -> None:
    link = _links.get(id(raw))
    if link is None or link.raw is not raw or link.is_own:
        close(raw)
    else:
        keep_open(raw)


def note_for_children(link: Link) -> None:
    """Record a link that a driver of SQLAlchemy has opened, so that forked children do not close it (S12)."""
    _links[id(link.raw)] = link


def _keep_links() -> None:
    for link in list(_links.values()):
        keep_open(link.raw)


# A child may end without closing its pools. Then Python frees what the pools contain.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_links)
