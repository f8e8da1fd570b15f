"""The public names are listed here once more, so that they change only on purpose."""

import inspect
import json
import os
import subprocess
import sys

import pytest

import replswitch
import replswitch.binding

PUBLIC = [
    "MASTER",
    "SLAVE",
    "ConfigurationError",
    "Connection",
    "NoServerError",
    "PositionError",
    "ReplSwitchError",
    "RevertError",
    "SlaveWriteError",
    "State",
    "Switch",
    "carry",
    "connect",
    "resume",
    "stats",
    "unrecorded",
]


FOR_BINDINGS = [
    "Frame",
    "RequestOptionNames",
    "RequestOptions",
    "RequestPolicy",
    "Resumable",
    "Scope",
    "Secret",
    "push",
    "request_options",
]


def test_replswitch_exports_these_names_in_this_order() -> None:
    assert replswitch.__all__ == PUBLIC
    assert replswitch.binding.__all__ == FOR_BINDINGS


def test_the_arguments_of_the_request_policy_are_those_that_third_party_bindings_use() -> None:
    policy = replswitch.binding.RequestPolicy
    arguments = {
        each.__name__: list(inspect.signature(each).parameters)
        for each in (policy.__init__, policy.begin, policy.override, policy.extra_headers, policy.mark)
    }
    assert arguments == {
        "__init__": ["self", "options", "secret"],
        "begin": ["self", "method", "cookies", "header", "override", "path", "has_body"],
        "override": ["self", "request", "wanted"],
        "extra_headers": ["self", "scope", "method", "status", "is_https"],
        "mark": ["self", "response", "scope", "method", "https"],
    }


def test_replswitch_has_no_public_name_that_is_not_in_its_list() -> None:
    shown = {
        name for name, value in vars(replswitch).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert shown == set(PUBLIC)


def test_public_errors_have_names_in_error_and_share_one_base_class() -> None:
    errors = [value for value in vars(replswitch).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert {error.__name__ for error in errors} == {name for name in PUBLIC if name.endswith("Error")}
    assert all(issubclass(error, replswitch.ReplSwitchError) for error in errors)


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The top-level names of the modules that ``import replswitch`` brings into a fresh interpreter."""
    program = (
        "import json, sys; before = set(sys.modules); import replswitch;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_replswitch_imports_no_framework_and_no_driver(imported: set[str]) -> None:
    assert "replswitch" in imported
    foreign = {name for name in imported - sys.stdlib_module_names if not name.startswith("_sysconfigdata")}
    assert foreign <= {"replswitch", "itsdangerous"}
    assert "sqlite3" not in imported
