"""The options in ``app.config``: those of replswitch, in capitals and with ``REPLSWITCH_`` in front."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from replswitch import ConfigurationError
from replswitch.checking import refuse_unknown, require_name
from replswitch.engine.options import DatabaseOptions
from replswitch.request.options import RequestOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask

PREFIX: Final = "REPLSWITCH_"

#: The slaves of Flask-SQLAlchemy's database.
SLAVES: Final = "REPLSWITCH_SLAVES"

_OF_REQUESTS: Final = {field.name.upper(): field.name for field in fields(RequestOptions)}
_OF_DATABASES: Final = {field.name.upper(): field.name for field in fields(DatabaseOptions)}

#: The argument ``name`` of `replswitch.sqlalchemy.replicate`.
NAME: Final = "NAME"


class Configured(NamedTuple):
    """The checked configuration of an application.

    Attributes:
        requests: the options of its requests, by their names in the core.
        database: the options of Flask-SQLAlchemy's database that were given.
        slaves: REPLSWITCH_SLAVES; None if it is not set.
    """

    requests: Mapping[str, Any]
    database: Mapping[str, Any]
    slaves: object


def configured(app: Flask) -> Configured:
    """Read the options of an application.

    Raises:
        ConfigurationError: a name is unknown or a value is of the wrong kind.
    """
    given = app.config.get_namespace(PREFIX, lowercase=False)
    requests = {_OF_REQUESTS[name]: value for name, value in given.items() if name in _OF_REQUESTS}
    database = {_OF_DATABASES[name]: value for name, value in given.items() if name in _OF_DATABASES}
    try:
        refuse_unknown("option", given, {*_OF_REQUESTS, *_OF_DATABASES, NAME, SLAVES.removeprefix(PREFIX)})
        RequestOptions(**requests)
        DatabaseOptions(**database)
        require_name(given.get(NAME))
    except ConfigurationError as error:
        raise ConfigurationError(f"app.config, where options begin with {PREFIX}: {error}") from error
    if NAME in given:
        database["name"] = given[NAME]
    return Configured(requests, database, given.get(SLAVES.removeprefix(PREFIX)))


def secrets_of(app: Flask) -> list[str | bytes]:
    """Return the secrets for the markers of an application: its secret key, which signs, and the fallbacks.

    Raises:
        ConfigurationError: the application has no secret key yet.
    """
    if not app.secret_key:
        raise ConfigurationError(
            f'The application "{app.name}" has no secret key to sign its markers with. Set '
            'app.config["SECRET_KEY"] before ReplSwitch(app), or before init_app(app) in a factory: the configuration '
            "is read only once."
        )
    older = app.config.get("SECRET_KEY_FALLBACKS") or ()
    if isinstance(older, str | bytes):
        raise ConfigurationError(
            'app.config["SECRET_KEY_FALLBACKS"] is a string. It must be a list of the secret keys before this one.'
        )
    return [app.secret_key, *older]
