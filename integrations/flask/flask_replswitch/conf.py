"""The options in ``app.config``. They have the names of replswitch's options, in capitals and after ``REPLSWITCH_``."""

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

#: The option that sets the argument ``name`` of `replswitch.sqlalchemy.replicate`.
NAME: Final = "NAME"


class Configured(NamedTuple):
    """The checked configuration of an application.

    Attributes:
        requests: the given options of requests, by their names in `replswitch.request.options.RequestOptions`.
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
        raise ConfigurationError(f"In app.config, where names of options begin with {PREFIX}: {error}") from error
    if NAME in given:
        database["name"] = given[NAME]
    return Configured(requests, database, given.get(SLAVES.removeprefix(PREFIX)))


def secrets_of(app: Flask) -> list[str | bytes]:
    """Return the secrets for the markers of an application. The first, its secret key, signs; the rest are fallbacks.

    Raises:
        ConfigurationError: the application has no secret key yet.
    """
    if not app.secret_key:
        raise ConfigurationError(
            f'The application "{app.name}" has no secret key to sign its markers with. Set '
            'app.config["SECRET_KEY"] before ReplSwitch(app), or before init_app(app) in a factory, because the '
            "configuration is read only once."
        )
    older = app.config.get("SECRET_KEY_FALLBACKS") or ()
    if isinstance(older, str | bytes):
        raise ConfigurationError(
            'app.config["SECRET_KEY_FALLBACKS"] is a string. It must be a list of the former secret keys.'
        )
    return [app.secret_key, *older]
