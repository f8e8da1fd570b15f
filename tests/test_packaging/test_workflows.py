"""The workflows of the forge call commands that exist, on the supported Pythons, and publish only what was tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
JOBS: dict[str, dict[str, Any]] = {
    f"{path.stem}: {name}": job
    for path in sorted(FOLDER.glob("*.yml"))
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
}
COMMANDS = {
    f"{name}: {step['run']}": step["run"]
    for name, job in JOBS.items()
    for step in job["steps"]
    if "make " in step.get("run", "")
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_of_a_workflow_is_a_target_of_make_and_a_session_of_nox(command: str) -> None:
    found = re.fullmatch(r'make ([a-z-]+)(?: ARGS="-s (.+)")?', command)
    assert found is not None
    target, session = found.groups()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    sessions = JOBS["ci: dependencies"]["strategy"]["matrix"]["session"] if "matrix" in str(session) else [session]
    for name in filter(None, sessions):
        assert re.search(rf"^def {name}\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE)


def test_the_tests_run_on_each_supported_python() -> None:
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert JOBS["ci: test"]["strategy"]["matrix"]["python"] == named


def test_what_is_published_was_tested_before_and_only_that_job_may_publish() -> None:
    publish, build = JOBS["release: publish"], JOBS["release: build"]
    assert publish["needs"] == "build"
    uploaded = build["steps"][-1]["with"]["path"].split()
    assert uploaded == [".nox/wheel-3-11/dist/*.whl", ".nox/wheel-3-11/dist/*.tar.gz"], "not what the session tests"
    assert [name for name, job in JOBS.items() if "permissions" in job] == ["release: publish"]
    assert publish["permissions"] == {"id-token": "write"}
