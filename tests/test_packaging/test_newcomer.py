"""tools/try-in-container: what it takes from the pages, which it then types in a clean Debian."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tools.newcomer import pages
from tools.newcomer.debian import pip_settings
from tools.newcomer.terminal import PROMPT, StepError, Terminal
from tools.newcomer.walk import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = """
Install it as root with `apt-get install curl
make`. In a new folder:

```
$ pip install 'replswitch[mysql]'
$ python run.py
…
serves
```

<!-- invisible-code-block: python
hidden()
-->

```python
with db:
    read()
```

```py
# main.py
a = 1
b = 2
```

```py
# main.py, the changed line
b = 3
```

```
A warning at …/main.py
```

```json
{}
```
"""


def steps_of(page: str) -> list[pages.Step]:
    return list(pages.steps((ROOT / "docs" / page).read_text()))


def test_the_steps_of_a_page_are_its_commands_code_and_files_in_order() -> None:
    assert list(pages.steps(PAGE)) == [
        pages.Command("apt-get install curl make"),
        pages.Command("pip install 'replswitch[mysql]'"),
        pages.Command("python run.py", "…\nserves\n"),
        pages.Code("with db:\n    read()\n"),
        pages.File("main.py", "a = 1\nb = 2\n"),
        pages.File("main.py", "b = 3\n", is_change=True),
        pages.Written("A warning at …/main.py\n"),
    ]


def test_a_changed_line_of_a_tutorial_replaces_one_line_of_its_file() -> None:
    change = pages.File("main.py", "b = 3\n", is_change=True)
    assert change.contents("a = 1\nb = 2\n") == "a = 1\nb = 3\n"
    with pytest.raises(ValueError, match=r"main\.py has 0 lines that begin with 'b'"):
        change.contents("a = 1\n")


def test_an_indented_block_is_typed_with_an_empty_line_at_its_end() -> None:
    assert pages.lines_to_type("with db:\n    read()\n") == ["with db:", "    read()", ""]
    assert pages.lines_to_type("a = 1\n") == ["a = 1"]


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    lines = pages.commands_of_readme((ROOT / "README.md").read_text())
    targets = [line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines()]
    assert [line.split()[:2] for line in lines] == [["make", "demo"], ["make", "test"]]
    assert all(line.split()[1] in targets for line in lines)


@pytest.mark.parametrize("page", [path.name for path in (ROOT / "docs").glob("tutorial*.md")])
def test_a_tutorial_says_how_to_install_all_that_a_clean_debian_lacks(page: str) -> None:
    commands = [
        step.line for step in pages.steps((ROOT / "docs" / page).read_text()) if isinstance(step, pages.Command)
    ]
    assert commands[0].startswith("apt-get install python3-venv ")
    assert commands[1:3] == ["python3 -m venv .venv", ". .venv/bin/activate"]
    assert commands[3].startswith("pip install 'replswitch[")


def test_the_tutorial_types_no_name_into_python_that_its_page_does_not_define() -> None:
    code = [
        step.text for step in pages.steps((ROOT / "docs" / "tutorial.md").read_text()) if isinstance(step, pages.Code)
    ]
    assert code
    assert "servers_by_name" not in "".join(code)


def test_package_indexes_in_folders_of_the_machine_are_left_out_of_the_settings_of_pip(tmp_path: Path) -> None:
    file = tmp_path / ".config" / "pip" / "pip.conf"
    file.parent.mkdir(parents=True)
    file.write_text("[global]\nindex-url = https://index.test/simple\nextra-index-url = file:///opt/simple\n")
    settings = pip_settings({"HOME": str(tmp_path), "PIP_EXTRA_INDEX_URL": "/opt https://more.test/simple"})
    assert settings["index-url"] == "https://index.test/simple"
    assert settings["extra-index-url"] == "https://more.test/simple"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    argv = [
        "env",
        "-i",
        f"PS1={PROMPT}",
        "TERM=dumb",
        "PATH=/usr/bin:/bin",
        "setsid",
        "--ctty",
        "--wait",
        "bash",
        "--norc",
        "-i",
    ]
    with Terminal(argv, tmp_path / "log") as terminal:
        yield terminal


def test_a_terminal_shows_the_output_and_the_exit_code(terminal: Terminal) -> None:
    shown = terminal.type("printf 'a\\nb'; false", 10)
    assert (shown.text, shown.code, shown.status) == ("a\nb", 1, None)


def test_try_in_container_stops_at_an_output_that_the_page_does_not_show(terminal: Terminal, tmp_path: Path) -> None:
    said: list[str] = []
    reader = Reader(terminal, terminal, tmp_path, said.append)
    reader.follow(pages.Command("echo one two three", "one … three\n"))
    assert reader.checked == 1
    with pytest.raises(StepError, match="echo four shows\nfour\nand not, as the page says,\nfive"):
        reader.follow(pages.Command("echo four", "five\n"))
    with pytest.raises(StepError, match="false has ended with the exit code 1"):
        reader.follow(pages.Command("false"))
    with pytest.raises(StepError, match="the page does not start Python"):
        reader.follow(pages.Code("a = 1\n"))
    with pytest.raises(StepError, match="has 0 lines that begin with 'b'"):
        reader.follow(pages.File("main.py", "b = 3\n", is_change=True))


def test_try_in_container_shows_what_it_would_type_without_root() -> None:
    done = subprocess.run(
        [ROOT / "tools" / "try-in-container", "--show", "readme", "docs"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "README.md"
    assert done.stdout.splitlines()[1].startswith("  $ make demo ")
    assert done.stdout.splitlines()[-1] == "  $ make docs"
