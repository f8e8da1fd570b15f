"""The reference of a module, from its docstrings, and the names that they mention."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils.nodes import Node, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PACKAGES: Final = ("replswitch", "django_replswitch", "flask_replswitch")
MISSING: Final = object()
ROOT: Final = Path(__file__).resolve().parents[1]

SHOWN: Final[set[str]] = set()
"""The files to which the reference links: each object to its source."""


def reference(module: str, names: list[str]) -> str:
    """Return the reference of a module as MyST: of these names, or of all that are in its `__all__`."""
    imported = importlib.import_module(module)
    names = names or imported.__all__
    objects = [name for name in names if has_docstring(getattr(imported, name))]
    lines = [f".. automodule:: {module}", f"   :members: {', '.join(objects)}" if objects else "", ""]
    for name in names:
        if name not in objects:
            lines += described(module, name, getattr(imported, name))
    return "\n".join(["```{eval-rst}", *lines, "```"])


def has_docstring(value: object) -> bool:
    """Return whether a value is a class or a function. Others, such as constants, have no docstring of their own."""
    return inspect.isclass(value) or inspect.isroutine(value)


def described(module: str, name: str, value: object) -> list[str]:
    """Return the description of a constant or a type, from the text at its definition."""
    source, original = origin(module, name)
    text = ModuleAnalyzer.for_module(source).find_attr_docs().get(("", original), [])
    shown = repr(value).replace("typing.", "")
    return [f".. py:data:: {name}", f"   :value: {shown}", "", *(f"   {line}" for line in text), ""]


@functools.cache
def imports(module: str) -> dict[str, tuple[str, str]]:
    """Return the names that a module imports, also for annotations only, each with its module and its name there."""
    if not is_ours(module) or (imported := load(module)) is None:
        return {}
    found = {}
    for node in ast.walk(ast.parse(inspect.getsource(imported))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return found


def is_ours(module: str) -> bool:
    """Return whether a module belongs to this project."""
    return module.partition(".")[0] in PACKAGES


def load(module: str) -> Any | None:
    """Return a module; None if there is none with this name."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def origin(module: str, name: str) -> tuple[str, str]:
    """Return the module that defines a name which other modules may have imported, and the name there."""
    while name in imports(module):
        module, name = imports(module)[name]
    return module, name


def readable_signature(
    _app: Sphinx, what: str, _name: str, value: Any, _options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Leave out the arguments of a class that are those of another library, with the types of that library.

    In the signature of a dataclass, replace a default that a function makes, because it is not valid Python.
    """
    if what == "class" and signature and not is_ours(getattr(value.__init__, "__module__", "")):
        return "(*args, **kwargs)", result
    return signature and signature.replace("<factory>", "..."), result


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: TextElement) -> Node | None:
    """Resolve a name in a docstring or an annotation that has no entry on the site in this form.

    The docstring uses the names of the module that defines an object, and the site those of the module that exports
    it. What is nowhere on the site, such as a class of Django, becomes plain text. A name that does not exist stays
    unresolved (None), which is a warning.
    """
    if node.get("refdomain") != "py":
        return None
    wanted = node["reftarget"].removesuffix("()").lstrip(".")
    for module, name in meanings(node.get("py:module") or "", node.get("py:class") or "", wanted):
        value = attribute(module, name)
        if value is MISSING:
            continue
        defined = f"{getattr(value, '__module__', module)}.{getattr(value, '__qualname__', name)}"
        for full in (f"{module}.{name}", defined):
            found = env.domains.python_domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, content)
            if found is not None:
                return found
        return content
    return None


def meanings(module: str, owner: str, wanted: str) -> Iterator[tuple[str, str]]:
    """Yield what a name with dots may mean in the docstring of a class or function: a module, and the name in it.

    Args:
        module: the module that exports the class or function.
        owner: the class; empty for a function.
        wanted: the name.
    """
    home, _ = origin(module, owner.partition(".")[0])
    yield home, f"{owner}.{wanted}"
    first, dot, rest = wanted.partition(".")
    for scope in dict.fromkeys([home, module, *(source for source, _ in imports(module).values())]):
        source, name = origin(scope, first)
        yield source, f"{name}{dot}{rest}"
    yield "builtins", wanted
    parts = wanted.split(".")
    for number in range(len(parts), 0, -1):
        yield ".".join(parts[:number]), ".".join(parts[number:])


def attribute(module: str, name: str) -> object:
    """Return what a module has under a name with dots; None for an attribute that is only declared, else MISSING."""
    value = (load(module) if module else None) or MISSING
    for part in filter(None, name.split(".")):
        is_declared = part in getattr(value, "__annotations__", {})
        value = getattr(value, part, None if is_declared else MISSING)
    return value


def source_link(_domain: str, info: dict[str, str]) -> str | None:
    """Return the link from an object to its source, which is on the site; None for what is defined elsewhere."""
    value: Any = attribute(info["module"], info["fullname"])
    value = inspect.unwrap(value.fget if isinstance(value, property) else value)
    try:
        file = Path(inspect.getsourcefile(value) or "").resolve()
        _, line = inspect.getsourcelines(value)
    except (OSError, TypeError):
        return None
    if not file.is_relative_to(ROOT):
        return None
    shown = file.relative_to(ROOT).as_posix()
    SHOWN.add(shown)
    return f"files/{shown}.html#line-{line}"
