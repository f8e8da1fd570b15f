"""A package that is missing or too old is named at the import, with the command that installs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

MODULES = {
    "sqlalchemy": "replswitch.sqlalchemy",
    "flask": "flask_replswitch",
    "django": "django_replswitch",
    "celery": "replswitch.celery",
    "rq": "replswitch.rq",
    "dramatiq": "replswitch.dramatiq",
}
TOO_OLD = {
    "sqlalchemy": ["1.4.54", "2.0.29"],
    "flask": ["2.3.3"],
    "django": ["4.2.30", "5.1.15"],
    "celery": ["5.3.6"],
    "rq": ["1.16.2"],
    "dramatiq": ["1.16.0"],
}

WITHOUT_DATA = """
import importlib.metadata as metadata
def version(name):
    raise metadata.PackageNotFoundError(name)
metadata.version = version
"""


def error_of(extra: str, folders: list[str], before: str = "") -> str:
    """Import the module of an extra in a new process with these folders, and return the error."""
    program = f"import sys; sys.path[:0] = {folders!r}\n{before}\nimport {MODULES[extra]}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    return done.stderr


def oldest(extra: str) -> str:
    """The oldest version that pyproject.toml admits."""
    (requirement,) = map(Requirement, EXTRAS[extra])
    return next(bound.version for bound in requirement.specifier if bound.operator == ">=")


@pytest.mark.parametrize(("extra", "version"), [(extra, each) for extra in TOO_OLD for each in TOO_OLD[extra]])
def test_an_old_version_is_refused_at_the_import(extra: str, version: str, tmp_path: Path) -> None:
    name = Requirement(EXTRAS[extra][0]).name
    data = tmp_path / f"{name}-{version}.dist-info"
    data.mkdir()
    (data / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    wanted = f"replswitch needs {name} {oldest(extra)} or newer, and {version} is installed."
    assert f"{wanted} Run: pip install 'replswitch[{extra}]'" in error_of(extra, [str(tmp_path), *sys.path])


@pytest.mark.parametrize("extra", MODULES)
def test_a_missing_package_is_named_at_the_import(extra: str) -> None:
    error = error_of(extra, sys.path, before=f"{WITHOUT_DATA}\nsys.modules[{extra!r}] = None")
    name = Requirement(EXTRAS[extra][0]).name
    assert f"replswitch needs {name} {oldest(extra)} or newer, which is not installed." in error


@pytest.mark.parametrize("extra", MODULES)
def test_a_package_without_metadata_of_its_version_is_accepted(extra: str) -> None:
    assert error_of(extra, sys.path, before=WITHOUT_DATA) == ""
