"""The comparison of Django's own tests with both engines reports what differs, and what keeps it from running."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from tests.django_suite.suite_outcomes import Outcome, Outcomes, only_in
from tests.django_suite.suite_script import compare, packages, unless_missing
from tests.django_suite.suite_source import MISSING


def sabotage(folder: Path, code: str) -> str:
    """Return a PYTHONPATH on which Django's process with our engine runs code when it starts."""
    folder.joinpath("sitecustomize.py").write_text(
        f"import os\nif 'django_replswitch' in os.environ.get('DJANGO_SUITE', ''):\n    {code}\n"
    )
    return os.pathsep.join([str(folder), packages()])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [[], ["--brief"]], ids=["whole", "brief"])
def test_a_test_that_fails_with_our_engine_only_is_reported(tmp_path: Path, options: list[str]) -> None:
    broken = sabotage(tmp_path, "from django.db.models import Model; Model.__str__ = lambda self: 'broken'")
    done = unless_missing(compare("--keep", str(tmp_path / "kept"), *options, "str", PYTHONPATH=broken))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Fail with django_replswitch.backends.mysql, and not with django.db.backends.mysql: 1\n" in done.stdout
    assert re.search(r"^  str\.tests\.\w+\.\w+: failed \(passed with stock\)$", done.stdout, re.MULTILINE)
    assert "AssertionError: 'broken' != " in done.stdout
    kept = (tmp_path / "kept" / "replswitch.jsonl").read_text().splitlines()
    assert {json.loads(line).get("kind") for line in kept} == {None, "passed", "failed"}


@pytest.mark.timeout(300)
def test_an_interrupted_run_is_a_failure(tmp_path: Path) -> None:
    dying = sabotage(tmp_path, "from django.db.models import Model; Model.__str__ = lambda self: os._exit(0)")
    done = unless_missing(compare("str", PYTHONPATH=dying))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the run with django_replswitch.backends.mysql was cut off (exit 0)" in done.stderr


@pytest.mark.timeout(300)
def test_an_unknown_test_label_is_a_failure() -> None:
    done = unless_missing(compare("no_such_label"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.endswith("cannot be loaded: unittest.loader._FailedTest.no_such_label\n")


def test_a_failed_download_of_the_sdist_is_reported_in_one_line(tmp_path: Path) -> None:
    done = compare("--driver", "pymysql", "--cache", str(tmp_path), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == MISSING
    assert done.stderr.count("\n") == 1
    assert "in which Django's tests are, cannot be downloaded: " in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ours", "stock", "differs"),
    [
        ("passed", "passed", False),
        ("failed", "passed", True),
        ("error", "passed", True),
        ("skipped", "passed", True),
        ("expected failure", "passed", True),
        ("", "passed", True),
        ("failed", "skipped", True),
        ("error", "", True),
        ("unexpected success", "expected failure", True),
        ("failed", "error", False),
        ("passed", "failed", False),
        ("skipped", "skipped", False),
        ("skipped", "failed", False),
    ],
)
def test_only_tests_that_fail_with_one_engine_are_differences(ours: str, stock: str, differs: bool) -> None:
    one, other = ({"test": Outcome(kind)} if kind else {} for kind in (ours, stock))
    assert only_in(one, other) == (["test"] if differs else [])


def test_what_did_not_pass_can_be_run_again() -> None:
    run = Outcomes()
    ends = {
        "one.tests.A.test_a": "passed",
        "one.tests.A.test_b": "failed",
        "one.tests.B.test_c": "skipped",
        "setUpClass (one.tests.C)": "error",
        "setUpModule (two.tests)": "error",
        "tearDownClass (one.tests.A)": "error",
    }
    run.read(json.dumps({"test": test, "kind": kind}) for test, kind in ends.items())
    assert run.not_passed() == ["one.tests.A", "one.tests.A.test_b", "one.tests.B.test_c", "one.tests.C", "two.tests"]


def test_the_worst_outcome_of_a_test_name_counts() -> None:
    run = Outcomes()
    run.read(json.dumps({"test": "twice", "kind": kind}) for kind in ("passed", "failed", "skipped"))
    assert run.tests["twice"].kind == "failed"
    assert not run.finished
