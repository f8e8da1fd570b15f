"""The HTML of the log and the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from .markup import Html, fill, join, load

if TYPE_CHECKING:
    from replswitch.connect.workers import Query

    from .backstage import Visit
    from .standing import Standing

LIST = '<ol id="messages" reversed>'

REASONS = {
    "marker": "this visitor has just written",
    "own-write": "this request has just written",
    "no-slave": "no slave can be reached",
    "moved-write": "it was a write, and the slave refused it",
}

BECAUSE = {
    "marker": ", because you have just posted",
    "no-slave": ", because no slave can be reached",
}


def add_to(
    page: str,
    *,
    visits: list[Visit],
    visit: Visit,
    posted: int | None,
    standing: Standing | None,
    lag: float,
    longest_lag: int,
    engine: str,
    off: bool,
) -> str:
    """Put everything into the board's page, where it is one."""
    if LIST not in page or not visit.queries:
        return page
    panel = fill(
        load("backstage.html"),
        engine=engine,
        posted="" if posted is None else posted,
        switch=switch_html(off=off),
        lag=round(lag),
        longest_lag=longest_lag,
        standing=standing_html(standing),
        visits=join([visit_html(each, this=each is visit) for each in visits]),
        script=load("backstage.js"),
    )
    above, below = notice_html(visit, posted, standing, shown=f'id="message-{posted}"' in page)
    return (
        page.replace("</style>", f"{load('backstage.css')}</style>", 1)
        .replace(LIST, f"{above}\n{LIST}\n{below}", 1)
        .replace("</main>", f"</main>\n{panel}", 1)
    )


def notice_html(visit: Visit, posted: int | None, standing: Standing | None, *, shown: bool) -> tuple[Html, Html]:
    """Return the line with the server of the page, and a placeholder for an own message that is missing."""
    read = visit.queries[-1]
    above = fill(
        '<p class="source">Read from the $server$because.</p>',
        server=badge(read["db"]),
        because=BECAUSE.get(read["reason"], ""),
    )
    missing = (
        posted is not None
        and not shown
        and read["db"] == "slave"
        and standing is not None
        and posted <= standing.master_last
    )
    return above, fill(load("missing.html"), id=posted) if missing else Html()


def switch_html(*, off: bool) -> Html:
    """Return the switch of GET-after-POST, and its effect."""
    if off:
        return fill(load("switch.html"), checked="false", turn="on", word="Off", explanation=Html(OFF))
    return fill(load("switch.html"), checked="true", turn="off", word="On", explanation=Html(ON))


ON = (
    "Post a message: you see it at once, although the slave does not have it yet. For a while your pages are read "
    "from the master; everybody else's still come from the slave."
)
OFF = (
    "Post a message: it is saved, but your next page is read from the slave, which does not have it yet. "
    "Load the page again when the lag has passed, and it is there."
)


def standing_html(standing: Standing | None) -> Html:
    """Return the lag of the slave."""
    if standing is None:
        return Html('<p class="behind">One of the two servers does not answer.</p>')
    lacking = len(standing.lacking)
    words = "The slave has everything."
    if lacking:
        words = f"The slave is {max(0.1, standing.behind):.1f} s behind: it lacks {counted(lacking)}."
    return fill(
        load("standing.html"),
        master=counted(standing.master),
        slave=counted(standing.slave),
        state="lagging" if lacking else "level",
        words=words,
        slave_last=standing.slave_last,
        selectors=Html(", ".join(f"#message-{each} .number::after" for each in standing.lacking) or "#none"),
    )


def counted(messages: int) -> str:
    """Return a number of messages in words."""
    return f"{messages} message{'' if messages == 1 else 's'}"


def visit_html(visit: Visit, *, this: bool) -> Html:
    """Return a request with its queries."""
    return fill(
        load("visit.html"),
        method=visit.method,
        path=visit.path,
        status=visit.status,
        tags=join(
            [Html('<span class="tag">GET after POST is off</span>')] * visit.withheld
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
    """Return the path of a request as it was asked for, whatever bytes it is made of (PEP 3333 has latin-1)."""
    return quote(path_info, encoding="latin-1") + (f"?{query_string}" if query_string else "")
