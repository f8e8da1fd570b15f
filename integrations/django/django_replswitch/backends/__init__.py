"""Django database backends that switch between a master and its slaves under one alias.

``mysql``, ``postgis``, ``postgresql`` and ``sqlite3`` are Django's backends with the mixin `wrapper.SwitchingWrapper`.
"""

from django_replswitch import checks  # noqa: F401 - registers the system checks
