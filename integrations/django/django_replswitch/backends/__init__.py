"""Django database backends that switch between a master and its slaves under one alias.

``mysql`` and ``sqlite3`` are Django's own backends with `wrapper.SwitchingWrapper` in front.
"""

from django_replswitch import checks  # noqa: F401 - registers the system checks
