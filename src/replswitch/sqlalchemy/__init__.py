"""SQLAlchemy: sessions that follow a switch. One master engine, any number of slave engines.

::

    db = replicate(master, [slave])
    Session = sessionmaker(master, class_=RoutingSession)

    with db.use_slave(), Session() as session:
        session.scalars(select(User))
"""

from replswitch.sqlalchemy.engines import replicate
from replswitch.sqlalchemy.session import RoutingSession
from replswitch.sqlalchemy.switch import EngineSwitch

__all__ = ["EngineSwitch", "RoutingSession", "replicate"]
