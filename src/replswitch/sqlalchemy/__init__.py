"""SQLAlchemy sessions that run statements on a master or a slave, with one master engine and any number of slaves.

::

    db = replicate(master, [slave])
    Session = sessionmaker(master, class_=RoutingSession)

    with db.use_slave(), Session() as session:
        session.scalars(select(User))
"""

from replswitch.checking import require_package

require_package("SQLAlchemy", "2.0.30", "sqlalchemy")

from replswitch.sqlalchemy import watching  # noqa: E402, F401 - it fails with an older version; it adds its probe
from replswitch.sqlalchemy.engines import EngineSwitch, replicate  # noqa: E402 - likewise
from replswitch.sqlalchemy.session import RoutingSession  # noqa: E402 - likewise

__all__ = ["EngineSwitch", "RoutingSession", "replicate"]
