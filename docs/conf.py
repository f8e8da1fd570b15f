"""Configuration of Sphinx, for `make docs`. What makes a site of the pages of this folder is in `pages.py`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("docs", "src", "integrations/django", "integrations/flask")]

import django  # noqa: E402 - the modules that autodoc imports are these, not those of an installed version
from django.conf import settings  # noqa: E402 - likewise
from docstrings import source_link  # noqa: E402 - likewise

settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.sessions", "django_replswitch"])
django.setup()

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
release = version = PROJECT["version"]
copyright = author  # noqa: A001 - Sphinx's name

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.linkcode", "pages"]
nitpicky = True
# The classes of RQ and its client, in the signatures that `replswitch.rq` inherits.
nitpick_ignore = [("py:class", name) for name in ("BaseDeathPenalty", "Redis", "Serializer")]
default_role = "py:obj"  # `connect` in a docstring is a link

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
linkcode_resolve = source_link
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_heading_anchors = 4  # `page.md#heading`, as the code forge makes them
myst_url_schemes = {"http": None, "https": None, "mailto": None, "repository": "files/{{path}}.html"}

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sourcelink = False
