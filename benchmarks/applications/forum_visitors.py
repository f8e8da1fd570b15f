"""The visitors of the forum: members write, others read. Each topic that is opened counts its views."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from applications.forum_members import MEMBERS, PASSPHRASE

if TYPE_CHECKING:
    from applications.visit import Step, Visit


def member(visit: Visit) -> None:
    """Log in, talk, come back, and talk again."""
    logged_in(visit)
    visit.open("the forum", "/forum/1-welcome")
    topic = visit.open("a topic", f"/topic/{visit.number + 1}")
    said(visit, topic, f"I think so, says {visit.number}.")
    told(visit)
    visit.rest()
    visit.open("the forum, later", "/forum/1-welcome")
    topic = visit.open("a topic, later", f"/topic/{visit.number + 2}")
    said(visit, topic, f"I still think so, says {visit.number}.")
    for path in ("/", "/memberlist", "/topictracker", f"/user/{name(visit)}"):
        visit.open("a page, later", path)
    visit.open("log out", "/auth/logout")
    logged_in(visit)
    visit.open("a topic, logged in again", f"/topic/{visit.number + 2}")


def name(visit: Visit) -> str:
    """Return who the visitor is."""
    return MEMBERS[visit.number - 1]


def logged_in(visit: Visit) -> None:
    """Log in."""
    visit.open("home", "/")
    door = visit.open("log in", "/auth/login")
    visit.send("log in", door, "login", {"login": name(visit), "password": PASSPHRASE}, shows=("/auth/logout",))


def said(visit: Visit, topic: Step, what: str) -> None:
    """Answer in a topic, change the answer, and look at the topic again."""
    reply = visit.send("answer", topic, "content", {"content": what}, shows=(what,))
    visit.open("the topic again", topic.path, of=reply, shows=(what,))
    posts = re.findall(r'href="(/post/\d+/edit)"', reply.page)
    page = visit.open("the form of the answer", posts[-1] if posts else "")
    better = what.replace("think", "believe")
    visit.send("change the answer", page, "content", {"content": better}, shows=(better,), lacks=(what,))


def told(visit: Visit) -> None:
    """Tell about oneself."""
    page = visit.open("the form of the details", "/user/settings/user-details")
    values = {"location": f"Room {visit.number}", "notes": ""}
    visit.send("tell the details", page, "location", values, shows=(f"Room {visit.number}",))
    visit.open("the profile", f"/user/{name(visit)}")


def reader(visit: Visit) -> None:
    """Read, without a name."""
    for turn in range(4):
        visit.open("home", "/")
        visit.open("the forum", "/forum/1-welcome")
        visit.open("a topic", f"/topic/{turn + 1}-welcome")
        visit.open("members", "/memberlist")


VISITORS: Final = (member, reader, member, member)
