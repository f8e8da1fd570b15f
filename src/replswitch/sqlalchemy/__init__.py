"""SQLAlchemy sessions that follow a switch, with one master engine and any number of slave engines.

::

    db = replicate(master, [slave])
    Session = sessionmaker(master, class_=RoutingSession)

    with db.use_slave(), Session() as session:
        session.scalars(select(User))
"""

from replswitch.errors import ConfigurationError

try:
    from replswitch.sqlalchemy.engines import EngineSwitch, replicate
    from replswitch.sqlalchemy.session import RoutingSession
except ModuleNotFoundError as error:
    if error.name != "sqlalchemy":
        raise
    raise ConfigurationError(
        "replswitch.sqlalchemy needs SQLAlchemy, which is not installed. Install it: pip install "
        "'replswitch[sqlalchemy]'."
    ) from error

__all__ = ["EngineSwitch", "RoutingSession", "replicate"]
