"""The module that the application servers import. It opens its connections at once, before any later fork.

Where the database is, and which side this is, says the environment variable ``PROCESSES``, in JSON.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

settings: dict[str, Any] = json.loads(os.environ["PROCESSES"])

# Last, so that the packages of the server itself come first.
sys.path.extend(settings["path"])

side: Any = import_module(f"processes.on_{settings['side']}")
application: WSGIApplication = side.make(settings)
