"""All benchmarks of this folder, one after the other: python benchmarks.

Each prints ratios from one run, with the limit that the project has set itself beside them. Each also runs alone.
"""

from __future__ import annotations

import choosing
import connection
import flask_requests
import sessions
import state
import statements
import wsgi
from ratio import run

if __name__ == "__main__":
    run(
        __doc__,
        state.rows,
        wsgi.rows,
        connection.rows,
        choosing.rows,
        statements.rows,
        sessions.rows,
        flask_requests.rows,
    )
