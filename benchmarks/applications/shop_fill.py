"""A process that makes the shop's tables, and fills its shelves."""

from __future__ import annotations

import colorsys
from decimal import Decimal
from importlib import import_module
from io import BytesIO
from typing import Any, Final

from django.core.files.base import ContentFile
from django.core.management import call_command

from applications.serving import given
from applications.shop_project import set_up
from applications.shop_staff import STAFF

CATEGORIES: Final = ("Books > Fiction", "Books > Cooking", "Games")
PRODUCTS: Final = 24


def picture(number: int) -> ContentFile[bytes]:
    """Return a picture of a product."""
    image: Any = import_module("PIL.Image")
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number / PRODUCTS, 0.6, 0.8))
    made = BytesIO()
    image.new("RGB", (480, 360), (red, green, blue)).save(made, "JPEG")
    return ContentFile(made.getvalue(), name=f"product-{number}.jpg")


def fill() -> None:
    """Create the data that a shop needs before the first purchase."""
    model: Any = import_module("oscar.core.loading").get_model
    breadcrumbs: Any = import_module("oscar.apps.catalogue.categories").create_from_breadcrumbs
    users: Any = import_module("django.contrib.auth").get_user_model().objects
    users.create_superuser("staff", *STAFF)
    model("address", "Country").objects.create(
        iso_3166_1_a2="GB", printable_name="United Kingdom", name="United Kingdom", is_shipping_country=True
    )
    categories = [breadcrumbs(name) for name in CATEGORIES]
    kind = model("catalogue", "ProductClass").objects.create(name="Thing", track_stock=True, requires_shipping=True)
    partner = model("partner", "Partner").objects.create(name="Warehouse")
    for number in range(1, PRODUCTS + 1):
        product = model("catalogue", "Product").objects.create(
            title=f"Thing number {number}", upc=f"upc-{number}", product_class=kind, description="It is a good thing."
        )
        product.categories.add(categories[number % len(categories)])
        model("partner", "StockRecord").objects.create(
            product=product, partner=partner, partner_sku=f"sku-{number}", price=Decimal(number), num_in_stock=100_000
        )
        model("catalogue", "ProductImage").objects.create(product=product, original=picture(number))


if __name__ == "__main__":
    set_up(given())
    call_command("migrate", verbosity=0)
    fill()
    call_command("rebuild_index", interactive=False, verbosity=0)
