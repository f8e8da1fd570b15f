"""The visitors of ihatemoney: some keep the accounts of a journey, one tries the demonstration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from applications.visit import Step, Visit

CODE: Final = "a private code"


def home(visit: Visit) -> str:
    """Return the address of a visitor's project."""
    return f"/trip-{visit.number}/"


def spender(visit: Visit) -> None:
    """Keep the accounts of a journey, come back, and continue."""
    page = started(visit)
    page = spent(visit, page)
    settled(visit, page)
    changed(visit)
    visit.rest()
    again(visit)


def started(visit: Visit) -> Step:
    """Create a project, and add its members."""
    door = visit.open("home", "/")
    values = {"name": f"Trip {visit.number}", "password": CODE, "contact_email": "visitor@example.com"}
    page = visit.send("make a project", door, "creation-form", values, shows=(f"Trip {visit.number}",))
    for name in ("Alice", "Bob", "Carol"):
        page = visit.send(f"add {name}", page, "add-member-form", {"name": name}, shows=(f">{name}<",))
    return page


def bill(visit: Visit, at: Step, what: str, amount: str) -> Step:
    """Add a bill that the first member has paid for all."""
    (payer, *_) = re.findall(r'id="payed_for-(\d+)"', at.page) or [""]
    values = {"what": what, "amount": amount, "payer": payer}
    return visit.send(f"add {what}", at, "what", values, shows=(f">{what}<",))


def spent(visit: Visit, page: Step) -> Step:
    """Add bills, change one, and take one back."""
    for what, amount in (("Dinner", "30"), ("Train", "12.5"), ("Museum", "21")):
        page = bill(visit, page, what, amount)
    first, *_ = re.findall(rf'href="({home(visit)}edit/\d+)"', page.page) or [""]
    form = visit.open("the form of a bill", first)
    page = visit.send("change a bill", form, "what", {"what": "Gallery"}, shows=(">Gallery<",))
    deleted = first.replace("edit", "delete")
    page = visit.send("take it back", page, deleted or "-", {}, shows=(">Dinner<",), lacks=(">Gallery<",))
    visit.open("the bills of one kind", f"{home(visit)}?search=Train", of=page, shows=(">Train<",))
    return page


def settled(visit: Visit, page: Step) -> None:
    """Settle up."""
    visit.open("statistics", f"{home(visit)}statistics", of=page, shows=("Alice",))
    form = visit.open("who owes what", f"{home(visit)}settle_bills")
    paid = visit.send("settle", form, f"{home(visit)}settle", {})
    visit.open("the settlement is a bill", home(visit), of=paid, shows=(">Settlement<",))
    visit.open("history", f"{home(visit)}history", of=paid, shows=("Settlement", "Dinner"))
    visit.open("export", f"{home(visit)}export/bills.json", of=paid, shows=("Settlement",))


def changed(visit: Visit) -> None:
    """Change the project."""
    page = visit.open("the form of the project", f"{home(visit)}edit")
    name = f"Voyage {visit.number}"
    saved = visit.send(
        "rename the project", page, "edit-project", {"name": name, "current_password": CODE}, shows=(f'value="{name}"',)
    )
    visit.open("the bills", home(visit), of=saved, shows=(name,))
    visit.open("another language", "/lang/fr")
    visit.open("the first language", "/lang/en")


def again(visit: Visit) -> None:
    """Come back when the slaves have caught up."""
    page = visit.open("the bills, later", home(visit))
    visit.open("statistics, later", f"{home(visit)}statistics")
    visit.open("history, later", f"{home(visit)}history")
    visit.open("invitation, later", f"{home(visit)}invite")
    page = bill(visit, page, "Breakfast", "9")
    visit.open("statistics, later still", f"{home(visit)}statistics")
    visit.open("export, later", f"{home(visit)}export/bills.csv", of=page, shows=("Breakfast",))
    page = visit.send("log out", page, "/exit", {})
    door = visit.open("home, later", "/")
    page = visit.send("log in", door, "authentication-form", {"id": f"trip-{visit.number}", "password": CODE})
    visit.open("the bills, logged in again", home(visit), of=page, shows=(">Breakfast<",))


def guest(visit: Visit) -> None:
    """Try the demonstration: its first GET makes a project."""
    page = visit.open("the demonstration", "/demo")
    page = visit.open("its bills", "/demo/")
    for what in ("Tea", "Cake"):
        page = bill(visit, page, what, "3")
    for name in ("statistics", "settle_bills", "history"):
        visit.open(f"its {name}", f"/demo/{name}")
    visit.rest()
    page = visit.open("the demonstration, later", "/demo")
    page = bill(visit, page, "Milk", "2")
    for name in ("statistics", "settle_bills", "history"):
        visit.open(f"its {name}, later", f"/demo/{name}")


VISITORS: Final = (spender, spender, guest, spender)
