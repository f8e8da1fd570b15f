"""What the application servers import: it opens its connections at once, before any fork that comes later.

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

# Last, because what the server brings itself must fit together.
sys.path.extend(settings["path"])

side: Any = import_module(f"processes.on_{settings['side']}")
application: WSGIApplication = side.make(settings)
