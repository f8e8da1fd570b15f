"""The tests on every supported Python that is here, on the oldest dependencies, and on the wheel; each extra alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = PROJECT["project"]["optional-dependencies"]
PACKAGES = {"replswitch", "django_replswitch", "flask_replswitch"}

RUNS_TESTS = {
    "aiomysql", "aiosqlite", "asyncmy", "asyncpg", "channels", "cryptography", "daphne", "dj-database-url",
    "django-debug-toolbar", "django-environ", "django-tasks", "fastapi", "Flask", "Flask-SQLAlchemy", "greenlet",
    "gunicorn", "httptools", "hypercorn", "hypothesis", "litestar", "opentelemetry-instrumentation-django",
    "opentelemetry-instrumentation-mysqlclient", "opentelemetry-instrumentation-psycopg",
    "opentelemetry-instrumentation-pymysql", "opentelemetry-instrumentation-sqlalchemy", "psycopg-pool",
    "psycopg2-binary", "pytest", "pytest-django", "pytest-timeout", "pytest-xdist", "PyYAML", "quart", "redis",
    "selenium", "sybil", "uvicorn", "waitress", "websockets",
}  # fmt: skip
TOOLS = [requirement for requirement in EXTRAS["dev"] if Requirement(requirement).name in RUNS_TESTS]
"""The part of the extra ``dev`` that the tests import."""

TESTED = "mysql,postgresql,postgresql-server,django,flask,sqlalchemy,prometheus,opentelemetry,celery,rq,dramatiq"
"""The extras that the tests import, with PostgreSQL's server."""

ALONE = (
    "mysql", "postgresql", "django", "flask", "sqlalchemy", "prometheus", "opentelemetry", "celery", "rq", "dramatiq",
)  # fmt: skip
"""The extras of users that need no compiler. Each is tried alone."""

ALONE_SCRIPT = ROOT / "tests" / "test_packaging" / "extra_alone.py"

FLASK_TOOLS = [requirement for requirement in TOOLS if Requirement(requirement).name in {"Flask", "Flask-SQLAlchemy"}]
"""Those of them that an application of a user's imports as well, and whose oldest version matters."""


def runs(python: Path, version: str) -> bool:
    """Tell whether a command is a Python of that version."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", program], capture_output=True, text=True)  # noqa: S603, PLW1510 - ours
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def is_here(version: str) -> bool:
    """Tell whether a Python of that version is on this machine, and see to it that it is the first in the PATH.

    pyenv puts a command into the PATH for every version that it has; the command of a version that is not
    activated fails. So each candidate is run, and pyenv's own folders are looked into as well.
    """
    folders = [Path(folder) for folder in os.get_exec_path()]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)  # noqa: S607 - the user's
        folders += sorted(Path(root.stdout.strip()).glob(f"versions/{version}.*/bin"), reverse=True)
    for folder in folders:
        if runs(folder / f"python{version}", version):
            if shutil.which(f"python{version}") != str(folder / f"python{version}"):
                os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
            return True
    return False


SUPPORTED = nox.project.python_versions(PROJECT)
HERE = [version for version in SUPPORTED if is_here(version)]
if HERE != SUPPORTED:
    print(f"Skipped, not on this machine: Python {', '.join(sorted(set(SUPPORTED) - set(HERE)))}")

SHARED = ("--numprocesses", "4")
"""As in the Makefile."""

DJANGO = {"3.11": "5.2", "3.12": "6.1", "3.13": "6.1"}
"""The series of Django that is tested on each Python: the long-term one on the oldest, else the newest."""

nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"  # uv, where it is there, would not follow pip's settings


@nox.session
@nox.parametrize(("python", "django"), [(version, DJANGO[version]) for version in HERE[1:]])
def tests(session: nox.Session, django: str) -> None:
    """Run the tests with the newest dependencies. On the first Python, `make test` and the session ``wheel`` do."""
    session.install("--editable", f".[{TESTED}]", f"Django~={django}.0", *TOOLS)
    install_mysqlclient(session, *EXTRAS["mysqlclient"])
    session.run("pytest", *SHARED, *session.posargs)


@nox.session(python=HERE[:1] if HERE[:1] == SUPPORTED[:1] else [])
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml admits."""
    extras = [
        requirement
        for extra in (
            *("mysql", "postgresql", "django", "flask", "sqlalchemy", "prometheus", "opentelemetry"),
            *("celery", "rq", "dramatiq"),
        )
        for requirement in EXTRAS[extra]
    ]
    pinned = lowest(PROJECT["project"]["dependencies"] + extras + FLASK_TOOLS)
    session.install("--editable", f".[{TESTED}]", *pinned, *TOOLS)
    install_mysqlclient(session, *lowest(EXTRAS["mysqlclient"]))
    session.run("pytest", *SHARED, *session.posargs)


@nox.session(python=HERE[:1], reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """Build the distribution, install the wheel on the first Python, and run the tests that the sdist carries on it."""
    folder = Path(session.virtualenv.location, "dist")
    built, sdist = build(session, folder)
    with zipfile.ZipFile(built) as archive:
        typed = {name.partition("/")[0] for name in archive.namelist() if name.endswith("/py.typed")}
    if typed != PACKAGES:
        session.error(f"{built.name} should have the packages {PACKAGES}, with py.typed, and has {typed}")

    session.install(f"{built}[{TESTED}]", f"Django~={DJANGO[HERE[0]]}.0", *TOOLS)
    install_mysqlclient(session, *EXTRAS["mysqlclient"])
    session.run("tar", "-xzf", str(sdist), "-C", str(folder), external=True)
    session.chdir(folder / sdist.name.removesuffix(".tar.gz"))
    # pyproject.toml puts the sources into the path; here the tests must import the installed wheel.
    session.run("pytest", "-o", "pythonpath=.", *SHARED, *session.posargs)


@nox.session(python=HERE[:1], reuse_venv=False)
def extras(session: nox.Session) -> None:
    """Install each extra of the wheel alone, in an environment of its own, and use what it brings."""
    built, _ = build(session, Path(session.virtualenv.location, "dist"))
    for extra in ("", *ALONE):
        folder = Path(session.virtualenv.location, extra or "none")
        wanted = f"{built}[{extra}]" if extra else str(built)
        session.run("python", "-m", "venv", folder, silent=True)
        session.run(folder / "bin" / "pip", "install", "--quiet", wanted, external=True)
        session.run(folder / "bin" / "python", ALONE_SCRIPT, extra, external=True)


def build(session: nox.Session, folder: Path) -> tuple[Path, Path]:
    """Build the distribution, and return the paths of the wheel and the sdist."""
    session.install("build")
    session.run("python", "-m", "build", "--outdir", folder, silent=True)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def install_mysqlclient(session: nox.Session, requirement: str) -> None:
    """Install the driver that must be compiled. Where that cannot be and CI is not set, the session goes on."""
    session.run(str(ROOT / "tools" / "ensure-mysqlclient"), "python", requirement, external=True)


def lowest(requirements: list[str]) -> list[str]:
    """Pin each requirement to its lower bound: ``name>=1.2,<2`` is ``name==1.2``."""
    parsed = [Requirement(requirement) for requirement in requirements]
    return [f"{one.name}=={bound.version}" for one in parsed for bound in one.specifier if bound.operator == ">="]
