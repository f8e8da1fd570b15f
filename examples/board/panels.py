"""The HTML of the log and the controls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from .markup import Html, fill, join, load

if TYPE_CHECKING:
    from collections import Counter

    from replswitch.connect.workers import Query

    from .backstage import Kind, Visit
    from .standing import Standing

HEADER = "</header>"
MAIN = "<main>"
FORM = '<form class="post"'
TITLE = "<h2>Posts</h2>"
EMPTY = ">\n</textarea>"
"""Where the additions go in the page of the board."""

PROBLEM = (
    '<p class="lede">Posts are written to the master, but pages are read from a slave that lags behind it, so your own'
    " post can be missing from the very next page.</p>"
)
EXAMPLE = "Can I see my own post?"
"""The form begins with this post, so that a visitor need not write one."""

ON = (
    "After you post, replswitch reads your pages from the master until the slave has your post. Turn this off and"
    " post, and your post goes missing."
)
TURN_ON = Html('<button name="turn" value="on">Turn the protection on</button>')
OFF = "After you post, your next page is read from the slave, which does not have your post yet."

REASONS = {
    "marker": "this visitor has just written",
    "own-write": "this request has just written",
    "no-slave": "no slave can be reached",
    "moved-write": "it was a write, and the slave refused it",
}

BECAUSE = {
    "marker": ", because you have just posted and the slave does not have your post yet",
    "no-slave": ", because no slave can be reached",
}


def add_to(
    page: str,
    *,
    visits: list[Visit],
    visit: Visit,
    posted: int | None,
    standing: Standing | None,
    queries: Counter[Kind],
    lag: float,
    longest_lag: int,
    engine: str,
    off: bool,
) -> str:
    """Put the log and the controls into the page of the board. Return other pages unchanged."""
    if TITLE not in page or not visit.queries:
        return page
    shown = [int(found) for found in re.findall(r'<li [^>]*id="message-(\d+)"', page)]
    if posted is not None and not (standing and min(shown, default=1) <= posted <= standing.master_last):
        posted = None  # there is no such post, or it is too old for the page
    panel = fill(
        load("backstage.html"),
        engine=engine,
        posted="" if posted is None else posted,
        lag=round(lag),
        longest_lag=longest_lag,
        standing=standing_html(standing, queries),
        visits=join([visit_html(each, this=each is visit) for each in visits]),
        script=load("backstage.js"),
    )
    protection = protection_html(posted, off=off)
    source = source_html(visit, lag)
    outcome = Html()
    if posted is not None:
        outcome, source = outcome_html(visit, posted, source, shown=posted in shown, off=off), outcome
    if visit.status == 200:
        page = page.replace(EMPTY, f">\n{EXAMPLE}</textarea>", 1)
    return (
        page.replace("</style>", f"{load('backstage.css')}</style>", 1)
        .replace(HEADER, f"{PROBLEM}\n{HEADER}", 1)
        .replace(FORM, f"{protection}\n{FORM}", 1)
        .replace(MAIN, f"{MAIN}\n{outcome}", 1)
        .replace(TITLE, f"{TITLE}\n{source}", 1)
        .replace("</main>", f"</main>\n{panel}", 1)
    )


def protection_html(posted: int | None, *, off: bool) -> Html:
    """Return the switch of the protection, and what its position means."""
    return fill(
        load("protection.html"),
        posted="" if posted is None else posted,
        checked="false" if off else "true",
        turn="on" if off else "off",
        word="Off" if off else "On",
        meaning=OFF if off else ON,
    )


def source_html(visit: Visit, lag: float) -> Html:
    """Return a line that says which server the page was read from, and why."""
    read = visit.queries[-1]
    behind = f", which runs {seconds(lag)} behind the master" if lag else ""
    return fill(
        '<p class="source">This page was read from the $badge <span class="address">$server</span>$because.</p>',
        badge=badge(read["db"]),
        server=read["server"],
        because=behind if read["db"] == "slave" else BECAUSE.get(read["reason"], ""),
    )


def outcome_html(visit: Visit, posted: int, source: Html, *, shown: bool, off: bool) -> Html:
    """Return a box that says whether the visitor's own post is on the page."""
    missing = visit.queries[-1]["db"] == "slave" and not shown
    return fill(
        load("outcome.html"),
        kind="missing" if missing else "here",
        id=posted,
        title=f"Your post #{posted} is {'missing' if missing else 'here'}",
        source=source,
        actions=fill(load("missing.html"), id=posted, badge=badge("master"), button=TURN_ON if off else Html())
        if missing
        else Html(),
    )


def standing_html(standing: Standing | None, queries: Counter[Kind]) -> Html:
    """Return a table of the posts on the two servers, and of the queries that each has served."""
    if standing is None:
        return Html("<p>One of the two servers does not answer.</p>")
    lacking = len(standing.lacking)
    words = Html('<span class="level">The slave has all posts.</span>')
    if lacking:
        words = fill(
            '<span class="lagging">The slave lacks $posts written $ago ago.</span>',
            posts="the post" if lacking == 1 else f"{lacking} posts, the oldest",
            ago=seconds(max(0.1, standing.behind)),
        )
    servers = [
        fill(
            load("server.html"),
            badge=badge(db),
            posts=posts,
            reads=queries[db, "read"],
            writes=queries[db, "write"],
        )
        for db, posts in (("master", standing.master), ("slave", standing.slave))
    ]
    reads = queries["slave", "read"] + queries["master", "read"]
    return fill(
        load("standing.html"),
        words=words,
        servers=join(servers),
        reads=reads,
        on_slave=queries["slave", "read"],
        percent=f"{queries['slave', 'read'] / max(1, reads):.0%}".replace("%", "\u00a0%"),
        slave_last=standing.slave_last,
        selectors=Html(", ".join(f"#message-{each} .number::after" for each in standing.lacking) or "#none"),
    )


def seconds(number: float) -> str:
    """Return a time in words."""
    return f"{number:.1f}".removesuffix(".0") + "\u00a0s"


def visit_html(visit: Visit, *, this: bool) -> Html:
    """Return a request with its queries."""
    return fill(
        load("visit.html"),
        method=visit.method,
        path=visit.path,
        status=visit.status,
        tags=join(
            [Html('<span class="tag">protection is off</span>')] * visit.withheld
            + [Html('<span class="tag this">this page</span>')] * this
        ),
        queries=join([query_html(each, visit.method) for each in visit.queries])
        or Html('<li class="none">No query.</li>'),
    )


def query_html(query: Query, method: str) -> Html:
    """Return a query: where it went and why."""
    reason = query["reason"]
    if reason == "method":
        words = f"a {method} {'reads' if query['db'] == 'slave' else 'may write'}"
    else:
        words = REASONS.get(reason, "")
    return fill(
        load("query.html"),
        db=query["db"],
        badge=badge(query["db"]),
        server=query["server"],
        milliseconds=f"{query['time'] * 1000:.1f}",
        sql=query["sql"],
        reason=reason,
        words=f": {words}" if words else "",
    )


def badge(db: str) -> Html:
    """Return ``master`` or ``slave`` in its colour."""
    return fill('<span class="badge $db">$db</span>', db=db)


def path(path_info: str, query_string: str) -> str:
    """Return the path of a request as the client sent it. PEP 3333 decodes its bytes as latin-1."""
    return quote(path_info, encoding="latin-1") + (f"?{query_string}" if query_string else "")
