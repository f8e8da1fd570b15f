"""The additions of the demonstration to the board: a log of its requests, and two controls.

`Backstage` wraps the whole board, the middleware included, as a debug toolbar would. The board knows nothing of it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webob import Request, Response
from webob.exc import HTTPBadRequest, HTTPSeeOther

from . import panels
from .board import LATEST, fields, number
from .standing import standing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from replswitch.connect.workers import Query
    from replswitch.testing import ReplicatedPair

    from .board import Board

VISITS_KEPT = 12
LONGEST_LAG = 10

SWITCH = "protection"
"""The value of this cookie is ``off`` if a visitor has turned the protection of their own posts off."""

Kind = tuple[str, str]
"""``"master"`` or ``"slave"``, and ``"read"`` or ``"write"``."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request to the board, and its queries.

    Attributes:
        method: the HTTP method.
        path: the path with the query string.
        status: the status code of the answer.
        queries: each with its server and reason.
        withheld: whether it was a GET whose marker was removed before replswitch could read it.
    """

    method: str
    path: str
    status: int
    queries: list[Query]
    withheld: bool


class Backstage:
    """The board with the log and the controls; a WSGI application.

    Args:
        board: the board, whose queries are shown.
        pair: the servers that it is connected to, whose lag is shown and set.
        engine: the description of these servers.
    """

    def __init__(self, board: Board, pair: ReplicatedPair, engine: str) -> None:
        self.board = board
        self.db = board.db
        self.db.debug = True
        self.pair = pair
        self.engine = engine
        self.visits: deque[Visit] = deque(maxlen=VISITS_KEPT)
        self.queries: Counter[Kind] = Counter()
        self.actions = {
            ("POST", "/backstage/lag"): self.set_lag,
            ("POST", "/backstage/protection"): self.turn_protection,
            ("GET", "/backstage/standing"): self.show_standing,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request. The board serves all requests that are not for the controls."""
        action = self.actions.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]), self.visit)
        return action(Request(environ))(environ, start_response)

    def visit(self, request: Request) -> Response:
        """Let the board answer, log its queries, and show them on its page."""
        off = request.cookies.get(SWITCH) == "off"
        withheld = off and withhold_markers(request) and request.method == "GET"
        self.db.reset_queries()
        response: Response = request.get_response(self.board)
        path = panels.path(request.environ["PATH_INFO"], request.query_string)
        visit = Visit(request.method, path, response.status_int, self.db.queries, withheld)
        self.visits.appendleft(visit)
        self.queries.update((each["db"], "read" if each["sql"] == LATEST else "write") for each in visit.queries)
        if response.content_type == "text/html" and request.method != "HEAD":
            response.text = panels.add_to(
                response.text,
                visits=list(self.visits),
                visit=visit,
                posted=number(fields(request.query_string).get("posted", "")),
                standing=standing(self.pair, self.db),
                queries=self.queries,
                lag=self.pair.lag,
                longest_lag=LONGEST_LAG,
                engine=self.engine,
                off=off,
            )
        return response

    def show_standing(self, request: Request) -> Response:
        """Return the part of the page with the figures of the servers."""
        return Response(panels.standing_html(standing(self.pair, self.db), self.queries), cache_control="no-store")

    def set_lag(self, request: Request) -> Response:
        """Set the lag."""
        form = fields(request.body.decode(errors="replace"))
        seconds = number(form.get("seconds", ""))
        if seconds is None or seconds > LONGEST_LAG:
            return HTTPBadRequest(f"The lag is a whole number of seconds from 0 to {LONGEST_LAG}.")
        self.pair.lag = seconds
        return back(form)

    def turn_protection(self, request: Request) -> Response:
        """Turn the protection of their own posts off or on, for this visitor alone."""
        form = fields(request.body.decode(errors="replace"))
        response = back(form)
        response.set_cookie(SWITCH, "off" if form.get("turn") == "off" else "on", httponly=True, samesite="Lax")
        return response


def back(form: dict[str, str]) -> Response:
    """Redirect visitors to the page that they came from."""
    posted = number(form.get("posted", ""))
    return HTTPSeeOther(location="/" if posted is None else f"/?posted={posted}")


def withhold_markers(request: Request) -> bool:
    """Take replswitch's markers out of a request. Return whether there were any."""
    markers = [name for name in request.cookies if name.startswith("just_updated")]
    for name in markers:
        del request.cookies[name]
    return bool(markers)
