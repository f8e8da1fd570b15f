"""System checks for settings that would fail without an error message.

The checks are registered when this module is imported. Each backend imports it, and so does ``"django_replswitch"`` in
``INSTALLED_APPS``. The page "How to use it in Django" of the documentation lists the id of every check, and what to do.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register  # noqa: A004 - Django's names
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.utils.module_loading import import_string

from django_replswitch import conf
from django_replswitch.report import address, asked_servers, switching_aliases
from django_replswitch.servers import named_set, servers_of
from django_replswitch.slaves import slaves_of
from replswitch import SLAVE
from replswitch.engine.servers import Server
from replswitch.report import statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replswitch.report import ServerStatus

#: The settings in which a slave can differ from the master.
SLAVE_KEYS: Final = ("HOST", "PORT", "NAME", "USER", "PASSWORD", "OPTIONS", "WEIGHT", "RESOLVE")

# Keys that functions such as those of dj-database-url add to settings made from a URL. In a slave they have no effect.
_ADDED: Final = {"CONN_HEALTH_CHECKS": False, "CONN_MAX_AGE": 0, "DISABLE_SERVER_SIDE_CURSORS": False}

# Keys that probably mean SLAVES: names in other libraries, and spelling mistakes.
_MEANT_SLAVES: Final = re.compile(r"(SLAVE|REPLICA|READ_?REPLICA|READER)S?", re.IGNORECASE)

# Named here and imported only when the checks run, because the backend imports this module before all other modules.
_OURS: Final = "django_replswitch.middleware.ReplicationMiddleware"
_SESSION_MIDDLEWARE: Final = "django.contrib.sessions.middleware.SessionMiddleware"
_OUTSIDE: Final = {
    _SESSION_MIDDLEWARE: "it reads and writes sessions outside the request's state",
    "django.middleware.cache.UpdateCacheMiddleware": (
        "it may store a visitor's marker in the cache, and send it to other visitors"
    ),
}

_ON_MASTER: Final = "django_replswitch.sessions.on_master.OnMaster"
_CACHE: Final = "django_replswitch.cache.DatabaseCache"
_SESSIONS: Final = {
    "django.contrib.sessions.backends.db": "django_replswitch.sessions",
    "django.contrib.sessions.backends.cached_db": "django_replswitch.sessions.cached_db",
}

# The packages that replswitch replaces, by the first part of their modules' names.
_PREDECESSORS: Final = {"django_replicated": "django-replicated", "multidb": "django-multidb-router"}

# Our backends, which have the names of Django's.
_BACKENDS: Final = ("mysql", "postgis", "postgresql", "sqlite3")

# The databases that replicate, as the attribute `engine` of the drivers names them.
_REPLICATE: Final = ("mysql", "postgresql")

_KINDS: Final[dict[str, Callable[..., CheckMessage]]] = {"E": Error, "W": Warning, "I": Info}

Messages = list[CheckMessage]


def _say(identity: str, text: str, hint: str) -> Messages:
    """Return a list with one message of a check. The severity is the letter in its id, such as W in replswitch.W001."""
    kind = _KINDS[identity.removeprefix("replswitch.")[0]]
    return [kind(text, hint=hint, id=identity)]


# Checks of the settings


@register("replswitch")
def check_slaves(*_: object, **__: object) -> Messages:
    """Check the setting SLAVES of each alias."""
    found: Messages = []
    switching = switching_aliases()
    for alias, database in connections.settings.items():
        where = f'DATABASES["{alias}"]'
        if alias in switching:
            found += _check_alias(where, alias, database)
        elif "SLAVES" in database:
            engine = database["ENGINE"]
            name = engine.rpartition(".")[2]
            hint = f'Set "ENGINE": "django_replswitch.backends.{name if name in _BACKENDS else "mysql"}".'
            text = f'{where} has SLAVES, but its ENGINE, "{engine}", ignores them, so everything runs on the master.'
            found += _say("replswitch.E001", text, hint)
    return found


def _check_alias(where: str, alias: str, database: Mapping[str, Any]) -> Messages:
    if "SLAVES" not in database:
        return _without_slaves(where, database)
    try:
        master, slaves = servers_of(database, alias).master, slaves_of(database, alias)
        named_set(database, alias)
    except ImproperlyConfigured as error:
        return _say("replswitch.E002", str(error), 'See the page "How to use it in Django" of the documentation.')
    masters = address(database, master)
    found: Messages = []
    for number, slave in enumerate(slaves):
        its_place = f'{where}["SLAVES"][{number}]'
        for key, value in slave.items():
            if key not in SLAVE_KEYS and not _repeats(key, value, database):
                text = f'{its_place} has the unknown key "{key}".'
                if key in database:
                    text = f'{its_place} has "{key}": {value!r}, but {where} has another value.'
                found += _say("replswitch.E004", text, _meant(key, where, database))
        if address(database, Server("", SLAVE, slave)) == masters:
            text = f"{its_place} has the address of the master, so its reads run on the master."
            hint = (
                'Give the slave a HOST, a PORT or a unix_socket of its own. If there are no slaves, write "SLAVES": [].'
            )
            found += _say("replswitch.W001", text, hint)
    return found


def _without_slaves(where: str, database: Mapping[str, Any]) -> Messages:
    for key in map(str, database):
        if _MEANT_SLAVES.fullmatch(key) or difflib.get_close_matches(key.upper(), ["SLAVES"], cutoff=0.8):
            text = f'{where} has the unknown key "{key}", and no SLAVES.'
            return _say("replswitch.E003", text, 'Did you mean "SLAVES"?')
    return _say(
        "replswitch.I001",
        f"{where} has no SLAVES, so reads in slave state run on the master, through a read-only connection.",
        'Name the slaves: "SLAVES": [{"HOST": …}]. If there are none, write "SLAVES": [].',
    )


def _repeats(key: str, value: object, database: Mapping[str, Any]) -> bool:
    """Return whether a slave's setting has no effect, because its alias or `_ADDED` has the same value."""
    if key == "ENGINE":  # Django's backend for the same database is accepted
        return str(value).rpartition(".")[2] == str(database[key]).rpartition(".")[2]
    return any(key in known and known[key] == value for known in (database, _ADDED))


def _meant(key: object, where: str, database: Mapping[str, Any]) -> str:
    if key in database:
        return f"This setting is the same for all servers of an alias. Set it only in {where} itself, not in a slave."
    near = difflib.get_close_matches(str(key).upper(), SLAVE_KEYS, n=1)
    if near:
        return f'Did you mean "{near[0]}"?'
    return f"A slave can have {', '.join(SLAVE_KEYS)}. All other settings are the master's."


@register("replswitch")
def check_options(*_: object, **__: object) -> Messages:
    """Check the options in the setting REPLSWITCH."""
    try:
        conf.configured()
    except ImproperlyConfigured as error:
        return _say(
            "replswitch.E005", str(error), 'The page "How to use it in Django" of the documentation lists the options.'
        )
    return []


@register("replswitch")
def check_middleware(*_: object, **__: object) -> Messages:
    """Check that MIDDLEWARE has our middleware, before all middleware that must run in the state of the request."""
    if not switching_aliases() or not getattr(settings, "ROOT_URLCONF", None):
        return []  # nothing to switch, or no requests
    outside: Messages = []
    for path in settings.MIDDLEWARE:
        if _is_a(path, _OURS):
            return outside
        for kind, why in _OUTSIDE.items():
            if _is_a(path, kind):
                text = f'"{path}" comes before "{_OURS}" in MIDDLEWARE, so {why}.'
                outside += _say("replswitch.W003", text, f'Put "{_OURS}" first.')
    return _say(
        "replswitch.W002",
        "A database has slaves, but MIDDLEWARE does not have the middleware that sends reads to them. So only code "
        "that calls use_slave() reads from a slave.",
        f'Put "{_OURS}" first in MIDDLEWARE. If requests are switched by decorators alone, or by the WSGI '
        "middleware, silence this check.",
    )


@register("replswitch")
def check_sessions(*_: object, **__: object) -> Messages:
    """Check that sessions in a database with slaves are read and written on its master."""
    engine, store = settings.SESSION_ENGINE, f"{settings.SESSION_ENGINE}.SessionStore"
    if (
        not any(_is_a(path, _SESSION_MIDDLEWARE) for path in settings.MIDDLEWARE)
        or not _is_a(store, "django.contrib.sessions.backends.db.SessionStore")
        or _is_a(store, _ON_MASTER)
        or router.db_for_write(import_string(store).get_model_class()) not in switching_aliases()
    ):
        return []
    hint = f"Put {_ON_MASTER} in front of the other base classes of the engine's SessionStore."
    if engine in _SESSIONS:
        hint = f'Set SESSION_ENGINE = "{_SESSIONS[engine]}". Existing sessions stay valid.'
    return _say(
        "replswitch.W004",
        f'SESSION_ENGINE is "{engine}", whose rows are in a database with slaves. So a session may be read from a '
        "slave that does not have it yet, and each save of a session makes its visitor read from the master.",
        hint,
    )


@register("replswitch")
def check_caches(*_: object, **__: object) -> Messages:
    """Check that caches in a database with slaves are read and written on its master."""
    found: Messages = []
    for alias, cache in settings.CACHES.items():
        backend = cache["BACKEND"]
        if not _is_a(backend, "django.core.cache.backends.db.DatabaseCache") or _is_a(backend, _CACHE):
            continue
        kept: Any = caches[alias]
        if router.db_for_write(kept.cache_model_class) in switching_aliases():
            text = (
                f'The BACKEND of CACHES["{alias}"] is "{backend}", whose rows are in a database with slaves. So a '
                "GET that stores a value writes in slave state, which may be refused, and a value may be read from a "
                "slave that does not have it yet."
            )
            hint = f'Set "BACKEND": "{_CACHE}", or derive your own class from it. The table and its rows stay valid.'
            found += _say("replswitch.W011", text, hint)
    return found


@register("replswitch")
def check_predecessors(*_: object, **__: object) -> Messages:
    """Check that the settings no longer use the packages that replswitch replaces."""
    found: Messages = []
    for setting, why, identity in (
        ("DATABASE_ROUTERS", "sends queries to other aliases, and so bypasses the backend", "replswitch.W005"),
        ("MIDDLEWARE", "sets and deletes its own cookies, and chooses aliases by them", "replswitch.W006"),
    ):
        for entry in getattr(settings, setting, ()):
            path = entry if isinstance(entry, str) else type(entry).__module__  # a router may be an object
            package = _PREDECESSORS.get(path.partition(".")[0])
            if package is not None and switching_aliases():
                text = f'{setting} still has "{path}" of {package}, which {why}.'
                found += _say(
                    identity,
                    text,
                    'Remove it. The page "How to move from django-replicated or django-multidb-router" of the '
                    "documentation has the other steps.",
                )
    return found


def _is_a(path: str, kind: str) -> bool:
    """Return whether a path names the class ``kind`` or a subclass; False for a wrong path, which Django reports."""
    try:
        found = import_string(path)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, import_string(kind))


# Checks of the slaves, in ``manage.py check --database default`` and in ``migrate``


@register(Tags.database, "replswitch")
def check_servers(*_: object, databases: Sequence[str] | None = None, **__: object) -> Messages:
    """Check that the slaves can be reached, are slaves, and refuse the writes of the application's user."""
    found: Messages = []
    for alias in switching_aliases():
        database = connections.settings[alias]
        wrapper: Any = connections[alias]
        if alias not in (databases or ()) or wrapper.driver.engine not in _REPLICATE:
            continue
        if not slaves_of(database, alias):
            continue
        asked = asked_servers(alias)
        master, *slaves = statuses(asked)
        found += _check_master(alias, master)
        for server, slave in zip(asked[1:], slaves, strict=True):
            # Another check reports a slave with the address of the master.
            if server.address != asked[0].address:
                found += _check_slave(f'The slave {slave.server} of DATABASES["{alias}"]', slave)
    return found


def _check_master(alias: str, master: ServerStatus) -> Messages:
    if master.variables.get("synchronous_commit") != "remote_apply":
        return []
    text = (
        f'Each commit on the master {master.server} of DATABASES["{alias}"] waits until its synchronous slaves have '
        "applied it (synchronous_commit = remote_apply)."
    )
    hint = (
        "replswitch does not need this, because a slave serves only visitors whose writes it has. "
        "synchronous_commit = on is faster."
    )
    return _say("replswitch.I002", text, hint)


def _check_slave(who: str, slave: ServerStatus) -> Messages:
    if not slave.reachable:
        text = f"{who} cannot be checked: {slave.problem}."
        hint = "Its reads go to the other slaves or to the master."
        if "unsupported startup parameter" in str(slave.problem):
            hint += " In PgBouncer, set ignore_startup_parameters = options."
        return _say("replswitch.W007", text, hint)
    if slave.is_master:
        text = f"{who} is the master itself, under another address, so its reads run on the master."
        return _say("replswitch.W008", text, "Check which server this HOST points to.")
    if slave.replication == "none" and slave.read_only is False and not slave.grants:
        text = f"{who} is not in recovery. It follows no master, so it never gets the writes of the visitors."
        return _say("replswitch.W012", text, "Make this server a standby of the master, or remove it from SLAVES.")
    if slave.replication == "cluster":
        return []  # every node of Galera may be written to
    if not slave.read_only:
        return _say(
            "replswitch.W009",
            f"{who} is not read_only. A write to it by mistake does not reach the master, and may stop replication.",
            "Run SET GLOBAL read_only = ON on it, and set read_only = ON in its configuration file.",
        )
    privilege = _passes_read_only(slave)
    if privilege is None:
        return []
    text = f"{who} is read_only, but its user has {privilege} and can still write to it."
    hint = "Give the application a user with privileges on its own database only."
    return _say("replswitch.W010", text, hint)


def _passes_read_only(slave: ServerStatus) -> str | None:
    """Return the privilege with which the user may write to a read_only slave; None if they have no such privilege."""
    if slave.variables.get("super_read_only") == "ON" or slave.variables.get("read_only") == "NO_LOCK_NO_ADMIN":
        return None
    privileges = {"ALL PRIVILEGES", "READ_ONLY ADMIN", "SUPER", "CONNECTION_ADMIN"}
    if slave.is_mariadb:
        privileges.remove("CONNECTION_ADMIN")  # in MariaDB, it does not bypass read_only
        version = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)", slave.version or "")
        if version and (int(version[1]), int(version[2])) >= (10, 11):
            privileges.remove("SUPER")  # before MariaDB 10.11, it included READ_ONLY ADMIN
    for grant in slave.grants:
        granted = re.match(r"GRANT (.+?) ON \*\.\* TO ", grant)
        if granted and (held := privileges.intersection(re.split(", ?", granted[1]))):
            return min(held)
    return None
