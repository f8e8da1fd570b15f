"""The ``DatabaseWrapper`` of the PostGIS backend. Like Django's own, it needs the libraries GEOS and GDAL."""

from __future__ import annotations

from django.contrib.gis.db.backends.postgis import base

from django_replswitch.backends.postgresql.base import DatabaseWrapper as PostgreSQLWrapper


class DatabaseWrapper(PostgreSQLWrapper, base.DatabaseWrapper):
    """Django's PostGIS connection, on a master and its slaves."""

    stock = base.DatabaseWrapper
