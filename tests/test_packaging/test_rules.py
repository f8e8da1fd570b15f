"""docs/rules.md has every rule that is cited, and every rule there has a test that is named after it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rules.md"
RULES_TEXT = PAGE.read_text()

RULE = r"[SRMPF][1-9]\d?"
SECTIONS = dict(re.findall(rf"^### ({RULE})\n(.*?)(?=^##|\Z)", RULES_TEXT, re.MULTILINE | re.DOTALL))
"""The text of each rule that holds, by its id."""

FOLDERS = ("src", "integrations", "docs", "tests", "examples", "benchmarks")


def files_in(folder: str) -> list[Path]:
    """Return the Python files and the pages below a folder; of the project's own folder those that are in it."""
    found = (ROOT / folder).rglob("*") if folder else ROOT.iterdir()
    return sorted(file for file in found if file.suffix in {".py", ".md"})


def cited(file: Path) -> set[str]:
    """Return the ids that a file cites."""
    text = RULES_TEXT if file == PAGE else file.read_text()
    return set(cited_in_python(text) if file.suffix == ".py" else cited_in_markdown(text))


def cited_in_text(text: str) -> Iterator[str]:
    """Yield the ids in a text that stand alone: not those in addresses, paths and compounds (F1-score)."""
    yield from re.findall(rf"(?<![\w./#%])({RULE})(?![\w/%]|-(?!{RULE})\w)", text)


def cited_in_python(source: str) -> Iterator[str]:
    """Yield the ids in comments and docstrings, and those that names of tests begin with.

    Other strings are data, such as an SVG path, and other names are not about rules.
    """
    yield from named_in(source)
    if next(cited_in_text(source), None) is None:
        return  # most files; to take them apart would take seconds
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from cited_in_text(token.string)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from cited_in_text(ast.get_docstring(node) or "")


def cited_in_markdown(text: str) -> Iterator[str]:
    """Yield the ids in a page, outside examples and links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from cited_in_text(re.sub(r"\]\([^)]*\)", "]", text))


def named_in(source: str) -> Iterator[str]:
    """Yield the ids that names of tests begin with: ``test_s6_…`` or ``TestS6…``."""
    names = r"^ *(?:(?:async )?def test_([srmpf]\d+)(?=[_(])|class Test([SRMPF]\d+)(?!\d))"
    for of_function, of_class in re.findall(names, source, re.MULTILINE):
        yield (of_function or of_class).upper()


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("folder", ["", *FOLDERS], ids=lambda folder: folder or "pages beside these folders")
def test_every_cited_rule_is_on_the_page(folder: str) -> None:
    files = files_in(folder)
    assert files
    unknown = {str(file.relative_to(ROOT)): sorted(cited(file) - set(SECTIONS)) for file in files}
    assert {file: rules for file, rules in unknown.items() if rules} == {}


def test_every_rule_has_a_test_named_after_it() -> None:
    files = [file for file in files_in("tests") if file.suffix == ".py"]
    named = {rule for file in files for rule in named_in(file.read_text())}
    assert sorted(set(SECTIONS) - named) == []


def test_each_rule_is_on_the_page_once_and_in_order() -> None:
    headings = re.findall(r"^### (.*)$", RULES_TEXT, re.MULTILINE)
    assert headings == list(SECTIONS)
    for letter in "SRMPF":
        numbers = [int(rule[1:]) for rule in headings if rule[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("rule", SECTIONS)
def test_each_rule_links_to_its_page_for_users(rule: str) -> None:
    links = re.findall(r"\]\(([\w-]+\.md)(?:#([^)]*))?\)", SECTIONS[rule])
    assert links
    for page, anchor in links:
        assert not anchor or anchor in anchors(ROOT / "docs" / page), f"{page}#{anchor}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/how-it-works.md"])
def test_this_page_links_to_the_page_of_rules(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\(([\w/.-]+)[)#]", file.read_text())
    assert PAGE in {(file.parent / link).resolve() for link in links}


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("x = 1  # refused there (S8)", ["S8"]),
        ('"""The stack: rules S1 to S4, and (M1, P1)."""', ["S1", "S4", "M1", "P1"]),
        ('def test_s6_one_slave() -> None:\n    """F1."""', ["S6", "F1"]),
        ("class TestR2Clients: ...", ["R2"]),
        ("class TestR22Clients: ...", ["R22"]),
        ("def test_p2p(): ...", []),
        ("def f(): ...  # noqa: S311", []),
        ('PATH = "M4 11v4"', []),
        ("S3 = 1", []),
        ("x = 1  # as in s3://bucket or F1-Score, 1/S2", []),
    ],
)
def test_citations_in_python_are_found(source: str, rules: list[str]) -> None:
    assert list(cited_in_python(source)) == rules


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("A slave that is gone (F1, F2) rests; see S5.", ["F1", "F2", "S5"]),
        ("[S8](rules.md#s8)", ["S8"]),
        ("[what is refused](rules.md#S8)", []),
        ("```\nM4 11v4\n```\n", []),
        ("M4-M6, S1 to S3", ["M4", "M6", "S1", "S3"]),
    ],
)
def test_citations_in_pages_are_found(text: str, rules: list[str]) -> None:
    assert list(cited_in_markdown(text)) == rules
