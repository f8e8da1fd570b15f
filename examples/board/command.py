"""The command line: start the servers, then the board, and stop both at Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import secrets
import signal
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pair
import waitress  # type: ignore[import-untyped]  # it has no types of its own

from replswitch.testing import PairError

from .backstage import Backstage
from .board import Board, Draft

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from replswitch.testing import ReplicatedPair

FIRST_PORT = 8000
PORTS_TRIED = 100
LAG = 3
WELCOME = "Welcome! Turn the protection off, post, and look for your post."
ABOUT = {
    "pymysql": "Two MariaDB servers. They count the lag in whole seconds: a post may arrive up to one second later.",
    "psycopg": "Two PostgreSQL servers.",
    "sqlite3": "Two SQLite files; one is a copy of the other. If MariaDB or PostgreSQL is installed, these are real"
    " servers.",
}
"""The description of the servers, by their driver."""


class CommandError(Exception):
    """The command cannot be carried out. The message is for the user."""


def main() -> int:
    """Run the demonstration until Ctrl-C. Return the exit code."""
    options = parse(sys.argv[1:])
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    try:
        with listen(options.host, options.port) as listener:
            say("Starting the servers ...")
            with pair.start(options.database, options.real) as servers:
                serve(listener, servers)
    except (CommandError, PairError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass  # while the servers were starting; later on waitress ends by itself
    say("Stopped.")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python examples/board",
        description="A message board on a master and a lagging slave: a demonstration of replswitch.",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        help=f"the port to serve on; 0 for any free one (default: {FIRST_PORT}, or the next that is free)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to serve on (default: %(default)s)")
    pair.add_option(parser)
    return parser.parse_args(arguments)


def port_number(text: str) -> int:
    """Return the number of a port."""
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; a port is a number from 0 to 65535")
    return int(text)


def listen(host: str, port: int | None) -> socket.socket:
    """Take the port that was asked for, or else the first that is free.

    Raises:
        CommandError: the port or the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for each in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else [port]:
        try:
            return socket.create_server((host, each), family=family)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                # The errors of a name that is not known have numbers below 0.
                reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "no such address"
                raise CommandError(f"cannot serve on port {each} of {host}: {reason}.") from error
    raise CommandError(f"ports {FIRST_PORT} to {each} of {host} are all taken. Choose another one with --port.")


def serve(listener: socket.socket, servers: ReplicatedPair) -> None:
    """Serve the board until a signal stops it."""
    board = Board(driver=servers.driver, master=servers.master, slaves=servers.slaves, secret=secrets.token_urlsafe())
    with closing(board.db):
        board.create_table()
        board.add(Draft("replswitch", WELCOME))
        servers.wait_caught_up()
        servers.lag = LAG
        # It warns of requests that wait for a moment, and at the end of those that an open page has just made.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        backstage = Backstage(board, servers, ABOUT[servers.driver])
        server = waitress.create_server(backstage, sockets=[listener], threads=8)
        with closing(server):
            host, port = listener.getsockname()[:2]
            say(f"The board is at http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops it)")
            server.run()


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """Stop, as Ctrl-C does; from now on nothing interrupts the clearing up."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
