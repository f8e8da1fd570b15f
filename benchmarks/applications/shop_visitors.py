"""The visitors of the shop: some look, some buy, and one works there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from applications.shop_staff import STAFF

if TYPE_CHECKING:
    from applications.visit import Step, Visit

PASSPHRASE: Final = "a passphrase of a buyer"

FICTION: Final = "/catalogue/category/books/fiction_2/"
COOKING: Final = "/catalogue/category/books/cooking_3/"
GAMES: Final = "/catalogue/category/games_4/"


def product(number: int) -> str:
    """Return the address of a product."""
    return f"/catalogue/thing-number-{number}_{number}/"


def line(place: int, quantity: int) -> str:
    """Return the fields of the basket's form for one line."""
    return f'name="form-{place}-quantity" value="{quantity}"'


def reader(visit: Visit) -> None:
    """Look at the shop, and do nothing."""
    for turn in range(4):
        number = 5 * visit.number + turn
        visit.open("home", "/")
        for category in (FICTION, COOKING, GAMES):
            visit.open("a category", category)
        visit.open("a product", product(number))
        visit.open("a search", f"/search/?q=number+{number}")
        visit.open("all products, page 2", "/catalogue/?page=2")
        visit.open("an empty basket", "/basket/")
        visit.open("reviews of a product", f"{product(number)}reviews/")


def buyer(visit: Visit) -> None:
    """Fill a basket, register, buy, come back and buy again."""
    filled(visit)
    registered(visit)
    account(visit)
    bought(visit)
    visit.rest()
    again(visit)


def filled(visit: Visit) -> None:
    """Put things into the basket, without a name."""
    first, second = 3 * visit.number, 3 * visit.number + 1
    visit.open("home", "/")
    fiction = visit.open("a category", FICTION)
    visit.open("a product", product(first))
    added = visit.send("add a product to the basket", fiction, f"/basket/add/{first}/", {"quantity": "1"})
    basket = visit.open("the basket", "/basket/", of=added, shows=(line(0, 1),))
    visit.send("change the quantity", basket, "basket_formset", {"form-0-quantity": "3"}, shows=(line(0, 3),))
    page = visit.open("another product", product(second))
    added = visit.send("add it from its page", page, "add_to_basket_form", {"quantity": "2"})
    basket = visit.open("the basket", "/basket/", of=added, shows=(line(1, 2),))
    emptied = {"form-1-DELETE": "on"}
    visit.send("take it out again", basket, "basket_formset", emptied, shows=(line(0, 3),), lacks=(line(1, 2),))


def registered(visit: Visit) -> None:
    """Register; the basket goes along."""
    door = visit.open("log in or register", "/accounts/login/")
    values = {
        "registration-email": mail(visit),
        "registration-password1": PASSPHRASE,
        "registration-password2": PASSPHRASE,
        "registration_submit": "Register",
    }
    new = visit.send("register", door, "register_form", values, shows=(mail(visit),))
    visit.open("the basket, registered", "/basket/", of=new, shows=(line(0, 3),))


def account(visit: Visit) -> None:
    """Enter name and address, add an article to a wish list, and review it."""
    page = visit.open("the profile's form", "/accounts/profile/edit/")
    name = {"first_name": f"Ada{visit.number}", "last_name": "Lovelace"}
    visit.send("change the profile", page, "first_name", name, shows=(f"Ada{visit.number}",))
    page = visit.open("the form of an address", "/accounts/addresses/add/")
    visit.send("add an address", page, "line1", address(visit), shows=(address(visit)["line1"],))
    page = visit.open("a product", product(3 * visit.number + 2))
    wish = visit.send("wish for it", page, "add_to_wishlist_form", {})
    visit.open("wish lists", "/accounts/wishlists/", of=wish, shows=("/accounts/wishlists/", "Default"))
    page = visit.open("the form of a review", f"{product(3 * visit.number)}reviews/add/")
    review = {"title": f"A review by {visit.number}", "score": "4", "body": "It does what it should."}
    said = visit.send("write a review", page, "add_review_form", review, shows=(review["title"],))
    visit.open("the reviews", f"{product(3 * visit.number)}reviews/", of=said, shows=(review["title"],))
    visit.open("a search", "/search/?q=thing")


def bought(visit: Visit) -> Step:
    """Check out."""
    page = visit.open("check out", "/checkout/")
    visit.send("tell where to", page, "new_shipping_address", address(visit))
    page = visit.open("the preview", "/checkout/preview/")
    order = visit.send("place the order", page, "place_order_form", {}, shows=(address(visit)["line1"],))
    visit.open("the orders", "/accounts/orders/", of=order, shows=('href="/accounts/orders/1',))
    visit.open("the basket is empty", "/basket/", of=order, lacks=(line(0, 3),))
    return order


def again(visit: Visit) -> None:
    """Come back when the slaves have caught up."""
    page = visit.open("a product, later", product(visit.number))
    added = visit.send("add it from its page, later", page, "add_to_basket_form", {"quantity": "1"})
    visit.open("the basket, later", "/basket/", of=added, shows=(line(0, 1),))
    visit.open("the account, later", "/accounts/")
    visit.open("the orders, later", "/accounts/orders/")
    games = visit.open("a category, later", GAMES)
    number = 3 * visit.number + 2
    added = visit.send("add from a category, later", games, f"/basket/add/{number}/", {"quantity": "5"})
    visit.open("the basket, later still", "/basket/", of=added, shows=('-quantity" value="5"',))
    visit.open("log out", "/accounts/logout/")
    door = visit.open("log in or register", "/accounts/login/")
    log_in(visit, door, mail(visit), PASSPHRASE)
    visit.open("the orders, logged in again", "/accounts/orders/")
    bought_later(visit)


def bought_later(visit: Visit) -> None:
    """Check out a second time, with the address that is known."""
    page = visit.open("check out again", "/checkout/")
    visit.send("tell where to again", page, "new_shipping_address", address(visit))
    page = visit.open("the preview again", "/checkout/preview/")
    order = visit.send("place the second order", page, "place_order_form", {}, shows=(address(visit)["line1"],))
    visit.open("both orders", "/accounts/orders/", of=order, shows=('href="/accounts/orders/1',))


def staff(visit: Visit) -> None:
    """Work in the shop's dashboard."""
    door = visit.open("log in", "/accounts/login/")
    log_in(visit, door, *STAFF)
    for turn in (1, 2):
        page = visit.open("the form of a partner", "/dashboard/partners/create/")
        made = visit.send("make a partner", page, "name", {"name": f"Partner {turn}"}, shows=(f"Partner {turn}",))
        visit.open("the partners", "/dashboard/partners/", of=made, shows=(f"Partner {turn}",))
        page = visit.open("the form of a page", "/dashboard/pages/create/")
        values = {"title": f"Terms {turn}", "url": f"/terms-{turn}/", "content": f"<p>These are terms {turn}.</p>"}
        made = visit.send("make a page", page, "content", values, shows=(f"Terms {turn}",))
        visit.open("the page", f"/terms-{turn}/", of=made, shows=(f"These are terms {turn}.",))
        for name in ("orders", "users", "catalogue", "offers", "reviews", "reports"):
            visit.open(f"the dashboard's {name}", f"/dashboard/{name}/")
        visit.rest()


def log_in(visit: Visit, door: Step, who: str, passphrase: str) -> Step:
    """Log in."""
    values = {"login-username": who, "login-password": passphrase, "login_submit": "Log In"}
    return visit.send("log in", door, "login_form", values, shows=('logout/"',))


def mail(visit: Visit) -> str:
    """Return a buyer's address."""
    return f"buyer{visit.number}@example.com"


def address(visit: Visit) -> dict[str, str]:
    """Return the input of a buyer in the form of an address."""
    return {
        "first_name": f"Ada{visit.number}",
        "last_name": "Lovelace",
        "line1": f"{visit.number} Analytical Lane",
        "line4": "London",
        "postcode": "N1 9GU",
        "country": "GB",
    }


VISITORS: Final = (reader, buyer, buyer, reader, buyer, staff)
