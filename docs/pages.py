"""A Sphinx extension: the pages are written for the code forge, and this makes a site of them.

- The lists of links on `index.md` become the navigation.
- A line `<!-- api: replswitch.wsgi --> …` becomes the reference of a module; see `docstrings.py`.
- A line `<!-- include: ../CHANGELOG.md --> …` becomes that page. The rest of these lines is for the forge.
- A link to a file or folder outside this folder leads to a page of the site that shows it.
"""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from docstrings import ROOT, SHOWN, readable_signature, reference, resolve
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.util import logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

DOCS: Final = Path(__file__).resolve().parent
LOG: Final = logging.getLogger(__name__)

INCLUDE: Final = re.compile(r"^<!-- include: (\S+) -->.*$", re.MULTILINE)
API: Final = re.compile(r"^<!-- api: (\S+)((?: \w+)*) -->.*$", re.MULTILINE)
LINK: Final = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
CODE: Final = re.compile(r"(^ *```.*?^ *```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)

INCLUDED: Final = {
    (DOCS / path).resolve(): page.name
    for page in DOCS.glob("*.md")
    for path in INCLUDE.findall(page.read_text(encoding="utf-8"))
} | {ROOT / "README.md": "index.md"}
"""The pages that show a page outside this folder, by the path of the latter."""


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Change the text of a page before it is parsed."""
    text = API.sub(lambda found: reference(found[1], found[2].split()), source[0])
    parts = INCLUDE.split(text)
    parts[::2] = [linked(app.env, name, part, DOCS) for part in parts[::2]]
    parts[1::2] = [included(app.env, name, DOCS / part) for part in parts[1::2]]
    text = "".join(parts)
    source[0] = text + (navigation(text) if name == "index" else "")


def navigation(text: str) -> str:
    """Return a hidden table of contents for each section of the index that lists pages."""
    trees = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption, _, body = section.partition("\n")
        names = re.findall(r"^- \[[^\]]*\]\(([\w-]+)\.md\)", body, re.MULTILINE)
        trees.append("\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```", ""]))
    return "".join(trees)


def included(env: BuildEnvironment, name: str, path: Path) -> str:
    """Return the text of a page outside this folder, without its heading."""
    env.note_dependency(path)
    _, _, text = path.read_text(encoding="utf-8").partition("\n")
    return linked(env, name, text, path.parent)


def linked(env: BuildEnvironment, name: str, text: str, folder: Path) -> str:
    """Make links from pages in a folder lead to pages of the site. Code is not changed."""
    parts = CODE.split(text)
    parts[::2] = [LINK.sub(lambda found: target(env, name, found, folder), part) for part in parts[::2]]
    return "".join(parts)


def target(env: BuildEnvironment, name: str, found: re.Match[str], folder: Path) -> str:
    """Return the target of a link on the site."""
    path, anchor = Path(os.path.normpath(folder / found[1])), found[2] or ""
    if path in INCLUDED:
        return INCLUDED[path] + anchor
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix() + anchor
    if not path.exists():
        LOG.warning("a link leads to %s, which does not exist", found[0], location=name)
        return found[0]
    shown = path.relative_to(ROOT).as_posix()
    shown_files(env).setdefault(name, set()).add(shown)
    return f"repository:{shown}"


def shown_files(env: BuildEnvironment) -> dict[str, set[str]]:
    """Return the files and folders that are shown on the site, by the page that links to them."""
    files: dict[str, set[str]] = vars(env).setdefault("shown_files", {})  # Sphinx keeps it between builds
    return files


def forget(_app: Sphinx, env: BuildEnvironment, name: str) -> None:
    """Forget the files of a page that is read again."""
    shown_files(env).pop(name, None)


def file_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the pages that show files and folders of the repository."""
    waiting = sorted(SHOWN.union(*shown_files(app.env).values()))
    done = set()
    while waiting:
        shown = waiting.pop()
        path = ROOT / shown
        if shown in done:
            continue
        done.add(shown)
        if path.is_dir():
            entries = [each for each in sorted(path.iterdir()) if not each.name.startswith(("__pycache__", "."))]
            waiting += [f"{shown}/{each.name}" for each in entries]
            items = (f'<li><a href="{path.name}/{each.name}.html">{escape(each.name)}</a></li>' for each in entries)
            body = f"<ul>{''.join(items)}</ul>"
        else:
            body = highlighted(path)
        heading = f"<h1>{escape(shown)}</h1>"
        yield f"files/{shown}", {"title": shown, "body": heading + body, "parents": []}, "page.html"


def highlighted(path: Path) -> str:
    """Return the text of a file as HTML."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "<p>This file is not a text.</p>"
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    html: str = highlight(text, lexer, HtmlFormatter(lineanchors="line"))
    return html


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx's events."""
    app.connect("source-read", read)
    app.connect("env-purge-doc", forget)
    app.connect("html-collect-pages", file_pages)
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
