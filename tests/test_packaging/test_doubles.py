"""No ten successive lines occur twice in the tests and examples."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = 10


def test_no_ten_lines_stand_twice_in_tests_and_examples() -> None:
    """Blank lines and white space do not count."""
    seen: dict[tuple[str, ...], str] = {}
    repeated = []
    for path in sorted(each for folder in ("tests", "examples") for each in (ROOT / folder).rglob("*")):
        if path.suffix not in {".py", ".html", ".css", ".js", ".md"}:
            continue
        numbered = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        lines = [(number, " ".join(line.split())) for number, line in numbered if line.strip()]
        for start in range(len(lines) - RUN + 1):
            run = tuple(line for _, line in lines[start : start + RUN])
            place = f"{path.relative_to(ROOT)}:{lines[start][0]}"
            if run in seen:
                repeated.append(f"{place} repeats {seen[run]}")
            seen.setdefault(run, place)
    assert repeated == []
