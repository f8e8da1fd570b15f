"""The documentation site builds without a warning, its links and tables are right, and it has every public name."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html import unescape
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.test_packaging.test_import_graph import MODULES
from tests.test_packaging.test_rules import anchors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.timeout(300)  # on a busy machine, the build takes longer than its 15 seconds

API = re.compile(r"^<!-- api: (\S+)((?: \w+)*) -->", re.MULTILINE)
DOCUMENTED = {
    module: names.split() for page in sorted(DOCS.glob("api*.md")) for module, names in API.findall(page.read_text())
}
"""The modules on the pages, and the names of those that have no ``__all__``."""

PUBLIC = sorted(DOCUMENTED.keys() | {name for name, file in MODULES.items() if "\n__all__ = " in file.read_text()})
"""The modules with public names."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as `make docs` builds it."""
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "read", DOCS, folder / "html"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    if done.returncode or done.stderr:
        pytest.fail(f"make docs fails:\n{done.stderr[-4000:]}", pytrace=False)
    return folder / "html"


@pytest.fixture(scope="module")
def documented(site: Path) -> set[str]:
    """The names of Python that the site documents."""
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    return {line.split(" ")[0] for line in inventory.splitlines() if " py:" in line}


def names_of(module: str) -> list[str]:
    """Return the public names of a module."""
    names: list[str] = DOCUMENTED.get(module) or import_module(module).__all__
    return names


@pytest.mark.parametrize("module", PUBLIC)
def test_each_public_name_is_on_the_site(module: str, documented: set[str]) -> None:
    assert [name for name in names_of(module) if f"{module}.{name}" not in documented] == []


def test_each_link_within_the_site_leads_to_a_page_and_to_a_place_on_it(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    places = {path: set(re.findall(r'\bid="([^"]*)"', text)) for path, text in pages.items()}
    dead = []
    for path, text in pages.items():
        for link in set(re.findall(r'\b(?:href|src)="([^"]*)"', text)):
            target, _, place = unescape(link).partition("#")
            target = target.partition("?")[0]
            if re.match(r"\w+:|//", target):
                continue
            file = (path.parent / target).resolve() if target else path
            if not file.exists() or (place and place not in places.get(file, {place})):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_each_link_from_a_page_beside_the_manual_leads_to_a_file_and_a_heading(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for path, place in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)]*))?\)", text):
        file = ROOT / (path or page)
        assert file.exists(), path
        assert not place or place in anchors(file), f"{path}#{place}"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: str(page.name))
def test_each_table_of_a_page_begins_with_a_header(page: Path) -> None:
    """A row after an empty line begins a new table. Without a header, Markdown shows it as text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for first, second in re.findall(r"(?:^|\n\n)(\|.*)\n(.*)", text):
        assert re.fullmatch(r"\|(?: *:?-+:? *\|)+", second), first


def public_objects(module: str) -> Iterator[tuple[str, Any]]:
    """Yield each public function, class and method of a module, with its name.

    A method that only overrides one of another library has that library's arguments and result.
    """
    for name in names_of(module):
        value = getattr(import_module(module), name)
        if inspect.isroutine(value) or inspect.isclass(value):
            yield f"{module}.{name}", value
        for member, found in inspect.getmembers(value) if inspect.isclass(value) else ():
            homes = {base.__module__ for base in value.__mro__ if member in vars(base)}
            is_method = inspect.isroutine(found) or isinstance(found, property)
            if is_method and homes <= MODULES.keys() and not member.startswith("_"):
                yield f"{module}.{name}.{member}", found


OBJECTS = {module: dict(public_objects(module)) for module in PUBLIC}
CLASSES = {name: value for found in OBJECTS.values() for name, value in found.items() if inspect.isclass(value)}

REFERS = re.compile(r"\b(?:[Ss]ee|those of) `")
"""What a parameter means, and what is returned, may be in the docstring that another one refers to."""

RETURNS = re.compile(r"^(?:Say|Make|Begin|Open|Query|Combine) |\b(?:[Rr]eturn|[Yy]ield)s?\b|``with |@", re.MULTILINE)


def docstrings(name: str, value: Any) -> tuple[str, str]:
    """Return the docstring of an object, and all that explain it: also those of the class, and of base classes."""
    owner, _, member = name.rpartition(".")
    texts = [inspect.getdoc(value) or ""]
    if owner in CLASSES:
        bases = CLASSES[owner].__mro__
        texts = [vars(base)[member].__doc__ or "" for base in bases if member in vars(base)]
        texts += [base.__doc__ or "" for base in bases]
    return next(filter(None, texts), ""), "\n".join(texts)


def unexplained(name: str, value: Any) -> Iterator[str]:
    """Yield what the docstring of a name does not say."""
    text, everything = docstrings(name, value)
    if not text:
        yield f"{name} has no docstring"
    is_class = inspect.isclass(value)
    if isinstance(value, property) or REFERS.search(text):
        return
    if is_class and getattr(value.__init__, "__module__", "") not in MODULES:
        return  # another library defines the arguments, as for an Enum, or there are none
    signature = inspect.signature(value)
    for parameter in signature.parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} or parameter.name == "self":
            continue
        is_text_of_error = parameter.name == "message" and is_class and issubclass(value, Exception)
        if not is_text_of_error and not re.search(rf"\b{parameter.name}s?\b", everything):
            yield f"{name} does not explain {parameter.name}"
    if (
        not is_class
        and signature.return_annotation not in {"None", None, signature.empty, "Iterator[None]"}
        and not RETURNS.search(text)
    ):
        yield f"{name} does not say what it returns"


@pytest.mark.parametrize("module", PUBLIC)
def test_the_docstring_of_each_public_name_says_what_it_takes_and_returns(module: str) -> None:
    assert [each for name, value in OBJECTS[module].items() for each in unexplained(name, value)] == []
