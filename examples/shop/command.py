"""The command line of all shops."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

import pair

from replswitch.testing import PairError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replswitch.testing import ReplicatedPair

LAG = 3


def run(
    folder: str,
    framework: str,
    serve: Callable[[ReplicatedPair, int], None],
    real: Sequence[str] = tuple(pair.REAL),
) -> int:
    """Run a shop until Ctrl-C. Return the exit code.

    Args:
        folder: the name of the shop's folder, with which the shop is started.
        framework: the name of the framework.
        serve: fills the shop, and serves it on these servers and this port.
        real: the servers that it works with, as `pair.add_option` takes them.
    """
    options = parse(folder, framework, real)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pair.start(options.database, real) as servers:
            serve(servers, options.port)
    except PairError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def parse(folder: str, framework: str, real: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=f"python examples/{folder}",
        description=f"A shop in {framework} on a master and a lagging slave: an example of replswitch.",
    )
    parser.add_argument("--port", type=int, default=8000, help="the port; 0 for any free one (default: %(default)s)")
    pair.add_option(parser, real)
    return parser.parse_args()


def begin_lag(servers: ReplicatedPair) -> None:
    """Let the slave lag from now on, and print it."""
    servers.lag = LAG
    print(f"From now on the slave is {LAG} s behind the master.", flush=True)
