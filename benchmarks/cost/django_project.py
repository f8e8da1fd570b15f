"""The settings of the benchmarks' Django project: one project, with each of the packages that are compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Final

#: The package that a worker's project uses.
STOCK, OURS, REPLICATED, MULTIDB = "stock", "replswitch", "django-replicated", "multidb-router"

#: Stock Django with a router of four lines, as its manual shows one: reads on the slave, writes on the master.
PLAIN = "plain"

#: The middleware of each; without any on stock Django.
MIDDLEWARE: Final = {
    STOCK: [],
    PLAIN: [],
    OURS: ["django_replswitch.middleware.ReplicationMiddleware"],
    REPLICATED: ["django_replicated.middleware.ReplicationMiddleware"],
    MULTIDB: ["multidb.middleware.PinningRouterMiddleware"],
}

_ROUTERS: Final = {
    PLAIN: ["cost.django_project.ReadsOnSlave"],
    REPLICATED: ["django_replicated.router.ReplicationRouter"],
    MULTIDB: ["multidb.PinningReplicaRouter"],
}


class ReadsOnSlave:
    """The router of `PLAIN`."""

    def db_for_read(self, model: object, **hints: object) -> str:
        """Read on the slave, whatever was written before."""
        return "slave"

    def db_for_write(self, model: object, **hints: object) -> str:
        """Write on the master."""
        return "default"


@dataclass(frozen=True, slots=True)
class Project:
    """A Django project on a pair of servers.

    Attributes:
        built_with: whose database settings, middleware and router it has.
        driver: the module: ``MySQLdb`` (mysqlclient), ``pymysql``, ``psycopg`` or ``psycopg2``.
        master: the master's connection parameters, as the module takes them.
        slave: the slave's.
        atomic: ``ATOMIC_REQUESTS``.
        health_checks: ``CONN_HEALTH_CHECKS``.
        more_slaves: further slaves, of `OURS` alone.
        options: ``OPTIONS`` of each database.
    """

    built_with: str
    driver: str
    master: dict[str, Any]
    slave: dict[str, Any]
    atomic: bool = False
    health_checks: bool = False
    more_slaves: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments for the same project in another process."""
        return asdict(self)

    def settings(self) -> dict[str, Any]:
        """Return the settings.

        Beside what its package needs, each has the aliases ``stock`` and ``stock_slave``: Django's own backend, on
        the master and on the slave.
        """
        databases = {
            "default": self._database(self.master) | {"ATOMIC_REQUESTS": self.atomic},
            "slave": self._database(self.slave) | {"ATOMIC_REQUESTS": self.atomic},
            "stock": self._database(self.master),
            "stock_slave": self._database(self.slave),
        }
        if self.built_with == OURS:
            databases["default"]["ENGINE"] = f"django_replswitch.backends.{self._engine}"
            slaves = [self.slave, *self.more_slaves]
            databases["default"]["SLAVES"] = [{"HOST": slave["host"], "PORT": slave["port"]} for slave in slaves]
        if self.built_with in {STOCK, OURS}:
            del databases["slave"]
        return {
            **self._of_packages(),
            "SECRET_KEY": "a secret for the benchmark alone",
            "ALLOWED_HOSTS": ["*"],
            "ROOT_URLCONF": "cost.django_views",
            "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
            "MIDDLEWARE": MIDDLEWARE[self.built_with],
            "DATABASES": databases,
            "DATABASE_ROUTERS": _ROUTERS.get(self.built_with, []),
        }

    def _of_packages(self) -> dict[str, Any]:
        if self.built_with not in {REPLICATED, MULTIDB}:
            return {}
        # django-replicated asks for all of its settings, and has a module with their defaults.
        defaults = vars(import_module("django_replicated.settings"))
        replicated = {name: value for name, value in defaults.items() if name.startswith("REPLICATED_")}
        return {**replicated, "REPLICATED_DATABASE_SLAVES": ["slave"], "REPLICA_DATABASES": ["slave"]}

    @property
    def _engine(self) -> str:
        return "postgresql" if self.driver in {"psycopg", "psycopg2"} else "mysql"

    def _database(self, server: dict[str, Any]) -> dict[str, Any]:
        return {
            "ENGINE": f"django.db.backends.{self._engine}",
            "HOST": server["host"],
            "PORT": server["port"],
            "USER": server["user"],
            "PASSWORD": server.get("password", ""),
            "NAME": server.get("database") or server["dbname"],
            "OPTIONS": self.options.copy(),
            "CONN_MAX_AGE": None,  # queries are measured, not connecting
            "CONN_HEALTH_CHECKS": self.health_checks,
        }
