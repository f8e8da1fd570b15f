"""The forms of a page, filled as a browser would send them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Values = Mapping[str, str | Sequence[str]]

#: Inputs that are sent only if they are ticked.
TICKED: Final = {"checkbox", "radio"}

#: Inputs that are sent only if they are used.
USED: Final = {"submit", "button", "image", "reset", "file"}


@dataclass(slots=True)
class Form:
    """A form in a page.

    Attributes:
        name: its id.
        action: where it is sent to; empty for the page's own address.
        fields: names and values, in the order of the page.
    """

    name: str
    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)

    def filled(self, values: Values) -> list[tuple[str, str]]:
        """Return the data to send when some fields are filled in. Each value of a sequence is sent."""
        kept = [(name, value) for name, value in self.fields if name not in values]
        for name, value in values.items():
            kept += [(name, one) for one in ([value] if isinstance(value, str) else value)]
        return kept


class _Reader(HTMLParser):
    """Collects the forms of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._select: str | None = None
        self._options: list[tuple[str, bool]] = []
        self._area: str | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(given.get("id", ""), given.get("action", ""))
            self.forms.append(self._form)
        elif self._form is None:
            return
        elif tag == "input":
            self._input(self._form, given, ticked="checked" in given)
        elif tag == "select":
            self._select, self._options = given.get("name", ""), []
        elif tag == "option":
            self._options.append((given.get("value", ""), "selected" in given))
        elif tag == "textarea":
            self._area, self._text = given.get("name", ""), ""

    def _input(self, form: Form, given: dict[str, str], *, ticked: bool) -> None:
        kind = given.get("type", "text").lower()
        if given.get("name") and kind not in USED and (kind not in TICKED or ticked):
            form.fields.append((given["name"], given.get("value", "on" if kind in TICKED else "")))

    def handle_endtag(self, tag: str) -> None:
        if self._form is None:
            return
        if tag == "form":
            self._form = None
        elif tag == "select" and self._select is not None:
            chosen = [value for value, selected in self._options if selected]
            first = [value for value, _ in self._options[:1]]
            self._form.fields += [(self._select, value) for value in chosen or first if self._select]
            self._select = None
        elif tag == "textarea" and self._area is not None:
            self._form.fields.append((self._area, self._text.removeprefix("\n")))
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._text += data


def find(page: str, wanted: str) -> Form | None:
    """Return the first form of a page that has this id or a field of this name, or whose action ends with it."""
    reader = _Reader()
    reader.feed(page)
    for form in reader.forms:
        if wanted in {form.name, *(name for name, _ in form.fields)} or form.action.endswith(wanted):
            return form
    return None
