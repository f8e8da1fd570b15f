"""The checks that look at the settings alone."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register  # noqa: A004 - Django's names
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.utils.module_loading import import_string

from django_replswitch import conf
from django_replswitch.report import address, switching_aliases
from django_replswitch.servers import servers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.apps import AppConfig
#: What a slave may have different from the master.
SLAVE_KEYS: Final = ("HOST", "PORT", "NAME", "USER", "PASSWORD", "OPTIONS", "WEIGHT")

# What people write for SLAVES: other libraries' words, and slips of the pen.
_MEANT_SLAVES: Final = re.compile(r"(SLAVE|REPLICA|READ_?REPLICA|READER)S?", re.IGNORECASE)

# By name, and imported when the checks run: this module is imported with the backend, before anything else.
_OURS: Final = "django_replswitch.middleware.ReplicationMiddleware"
_SESSION_MIDDLEWARE: Final = "django.contrib.sessions.middleware.SessionMiddleware"
_OUTSIDE: Final = {
    _SESSION_MIDDLEWARE: "it reads and writes sessions outside the request's state",
    "django.middleware.cache.UpdateCacheMiddleware": (
        "it may keep a visitor's marker in the cache, and hand it to others"
    ),
}

_ON_MASTER: Final = "django_replswitch.sessions.on_master.OnMaster"
_SESSIONS: Final = {
    "django.contrib.sessions.backends.db": "django_replswitch.sessions",
    "django.contrib.sessions.backends.cached_db": "django_replswitch.sessions.cached_db",
}

# The packages that replswitch takes the place of, by the first part of their modules' names.
_PREDECESSORS: Final = {"django_replicated": "django-replicated", "multidb": "django-multidb-router"}

Messages = list[CheckMessage]


@register("replswitch")
def check_slaves(app_configs: Sequence[AppConfig] | None, **_: Any) -> Messages:
    """Check SLAVES of every alias."""
    found: Messages = []
    switching = switching_aliases()
    for alias, database in connections.settings.items():
        where = f'DATABASES["{alias}"]'
        if alias not in switching:
            if "SLAVES" in database:
                found.append(
                    Error(
                        f'{where} has SLAVES, but its ENGINE, "{database["ENGINE"]}", does not know them: everything '
                        "goes to the master.",
                        hint='Set "ENGINE": "django_replswitch.backends.mysql".',
                        id="replswitch.E001",
                    )
                )
            continue
        found += _misspelt(where, database)
        try:
            servers_of(database, alias)
        except ImproperlyConfigured as error:
            found.append(Error(str(error), hint="See docs/django.md.", id="replswitch.E002"))
        else:
            found += _unknown_keys(where, database)
            found += _own_address(where, database, alias)
    return found


def _misspelt(where: str, database: Mapping[str, Any]) -> Messages:
    if "SLAVES" in database:
        return []
    for key in map(str, database):
        if _MEANT_SLAVES.fullmatch(key) or difflib.get_close_matches(key.upper(), ["SLAVES"], cutoff=0.8):
            return [
                Error(
                    f'{where} has the unknown key "{key}", and no SLAVES.',
                    hint='Did you mean "SLAVES"?',
                    id="replswitch.E003",
                )
            ]
    return [
        Info(
            f"{where} has no SLAVES: reads in slave state go to the master, through a read-only connection.",
            hint='Name the slaves: "SLAVES": [{"HOST": …}]. To say that there are none, write "SLAVES": [].',
            id="replswitch.I001",
        )
    ]


def _unknown_keys(where: str, database: Mapping[str, Any]) -> Messages:
    found: Messages = []
    for number, slave in enumerate(database.get("SLAVES", ())):
        for key in slave:
            if key in SLAVE_KEYS:
                continue
            near = difflib.get_close_matches(str(key).upper(), SLAVE_KEYS, n=1)
            if key in database:
                hint = f"It is said once for all servers of an alias: put it into {where} itself."
            elif near:
                hint = f'Did you mean "{near[0]}"?'
            else:
                hint = f"A slave may have {', '.join(SLAVE_KEYS)}; what is left out is the master's."
            found.append(
                Error(f'{where}["SLAVES"][{number}] has the unknown key "{key}".', hint=hint, id="replswitch.E004")
            )
    return found


def _own_address(where: str, database: Mapping[str, Any], alias: str) -> Messages:
    servers = servers_of(database, alias)
    return [
        Warning(
            f'{where}["SLAVES"][{number}] has the address of the master: its reads do not leave the master.',
            hint='Give it a HOST or a PORT of its own. To say that there are no slaves, write "SLAVES": [].',
            id="replswitch.W001",
        )
        for number, slave in enumerate(servers.slaves[: len(database.get("SLAVES", ()))])
        if address(database, slave) == address(database, servers.master)
    ]


@register("replswitch")
def check_options(app_configs: Sequence[AppConfig] | None, **_: Any) -> Messages:
    """Check REPLSWITCH."""
    try:
        conf.configured()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="The options are listed in docs/django.md.", id="replswitch.E005")]
    return []


@register("replswitch")
def check_middleware(app_configs: Sequence[AppConfig] | None, **_: Any) -> Messages:
    """Check that the middleware is there, and outside of what needs it."""
    if not switching_aliases() or not getattr(settings, "ROOT_URLCONF", None):
        return []  # nothing to switch, or no requests
    paths = list(settings.MIDDLEWARE)
    place = next((place for place, path in enumerate(paths) if _is_a(path, _OURS)), None)
    if place is None:
        return [
            Warning(
                "A database has slaves, but MIDDLEWARE does not have the middleware that sends reads there: only "
                "what use_slave() says goes to them.",
                hint=f'Put "{_OURS}" first in MIDDLEWARE. If requests are switched by decorators alone, or by the '
                "WSGI middleware, silence this check.",
                id="replswitch.W002",
            )
        ]
    return [
        Warning(
            f'"{path}" stands before "{_OURS}" in MIDDLEWARE: {why}.',
            hint=f'Put "{_OURS}" first.',
            id="replswitch.W003",
        )
        for path in paths[:place]
        for kind, why in _OUTSIDE.items()
        if _is_a(path, kind)
    ]


@register("replswitch")
def check_sessions(app_configs: Sequence[AppConfig] | None, **_: Any) -> Messages:
    """Check that sessions in a switching database are read and written on its master."""
    if not any(_is_a(path, _SESSION_MIDDLEWARE) for path in settings.MIDDLEWARE):
        return []
    store = f"{settings.SESSION_ENGINE}.SessionStore"
    if not _is_a(store, "django.contrib.sessions.backends.db.SessionStore") or _is_a(store, _ON_MASTER):
        return []
    alias = router.db_for_write(import_string(store).get_model_class())
    if alias not in switching_aliases():
        return []
    cure = _SESSIONS.get(settings.SESSION_ENGINE)
    return [
        Warning(
            f'SESSION_ENGINE is "{settings.SESSION_ENGINE}", whose rows are in a database with slaves: sessions may '
            "be read from a slave that lacks the latest, and each that is saved sends its visitor to the master.",
            hint=f'Set SESSION_ENGINE = "{cure}"; sessions that exist stay valid.'
            if cure
            else f"Put {_ON_MASTER} in front of the other bases of its SessionStore.",
            id="replswitch.W004",
        )
    ]


@register("replswitch")
def check_predecessors(app_configs: Sequence[AppConfig] | None, **_: Any) -> Messages:
    """Check that nothing is left of the packages that replswitch takes the place of."""
    if not switching_aliases():
        return []
    return [
        Warning(
            f'{setting} still has "{path}" of {package}: {why}.',
            hint="Take it out. docs/moving-to-django-backend.md tells the rest.",
            id=identity,
        )
        for setting, why, identity in (
            ("DATABASE_ROUTERS", "it sends queries to aliases of its own, past the backend", "replswitch.W005"),
            ("MIDDLEWARE", "it sets and deletes cookies of its own, and chooses aliases by them", "replswitch.W006"),
        )
        for path in map(_path_of, getattr(settings, setting, ()))
        if (package := _PREDECESSORS.get(path.partition(".")[0]))
    ]


def _path_of(router_or_path: object) -> str:
    return router_or_path if isinstance(router_or_path, str) else type(router_or_path).__module__


def _is_a(path: str, kind: str) -> bool:
    """Say whether a path of the settings leads to a class of a kind; what cannot be imported is Django's to tell."""
    try:
        found = import_string(path)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, import_string(kind))
