"""The benchmarks of this folder, but for those that compare Django with itself, one after the other: python benchmarks.

Each prints ratios from one run, with the limit that the project has set itself beside them. Each also runs alone.
"""

from __future__ import annotations

import calls
import choosing
import connection
import flask_requests
import scaling
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
        calls.rows,
        statements.rows,
        sessions.rows,
        flask_requests.rows,
        scaling.rows,
    )
