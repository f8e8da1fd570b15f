"""The rows of the benchmarks, and their verdicts."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from cost.command import BENCHMARKS, main
from cost.ratio import Row, rate


@pytest.mark.parametrize(
    ("figure", "limit", "least", "verdict"),
    [
        (1.08, 1.08, None, "ok"),
        (1.084, 1.08, None, "ok"),  # it is the figure as printed that counts
        (1.09, 1.08, None, "OVER"),
        (3.6, None, 3.6, "ok"),
        (3.59, None, 3.6, "UNDER"),
        (2, 3, 1, "ok"),
        (0, 3, 1, "UNDER"),
        (4, 3, 1, "OVER"),
        (9, None, None, ""),
    ],
)
def test_the_verdict_of_a_row_follows_from_its_limits(
    figure: float, limit: float | None, least: float | None, verdict: str
) -> None:
    row = Row("row", figure, limit, least=least)
    assert row.verdict == verdict
    assert row.is_missed == (verdict in {"OVER", "UNDER"})
    assert verdict in str(row)


def test_a_row_prints_its_limits() -> None:
    assert "1.08" in str(Row("row", 1, 1.08))
    assert "≥3.60" in str(Row("row", 4, least=3.6))


@pytest.mark.parametrize(("words", "status", "lines"), [("", 0, 3), ("--verbose", 0, 5), ("--check", 1, 3)])
def test_a_missed_limit_is_printed_and_with_check_an_error(
    words: str, status: int, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = SimpleNamespace(__doc__="A script.", rows=lambda: [Row("row", 1, least=2, breakdown=("one", "two"))])
    monkeypatch.setitem(BENCHMARKS, "state", script)
    monkeypatch.setattr("cost.ratio.on_one_processor", lambda: None)
    assert main(["state", *words.split()]) == status
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert printed[-1] == "1 missed"


def test_an_unknown_benchmark_is_an_error_that_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "no benchmark is called nothing; they are: state, wsgi," in capsys.readouterr().err


def test_rate_counts_calls_a_second() -> None:
    seen = rate(lambda: time.sleep(0.02), threads=4, warm=0.1, seconds=0.5)
    assert 60 < seen <= 210


def test_rate_raises_the_error_of_a_thread() -> None:
    with pytest.raises(ZeroDivisionError):
        rate(lambda: 1 / 0, threads=2, warm=0, seconds=1)
