"""A configuration of gunicorn's: patch first. With ``--preload`` the worker would do it after the import."""

from importlib import import_module
from typing import Any

monkey: Any = import_module("gevent.monkey")  # in the servers' environment, and not in that of mypy
monkey.patch_all()
