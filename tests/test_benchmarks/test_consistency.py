"""The accounting of `benchmarks/consistency`, and a small run of it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from consistency.chart import ChartError, draw
from consistency.command import Plan, arguments, main, run
from consistency.ledger import MASTER, SLAVE, Ledger, Read, Tally
from consistency.report import BEGIN, END, Results, SaveError, problems, report, save
from consistency.sides import SIDES, SideError
from consistency.visitors import Kind

VISITOR, STRANGER = 7, 8
OURS, OTHER = (next(side for side in SIDES if side.name == name) for name in ("connect", "plain"))


@pytest.fixture
def ledger() -> Ledger:
    """Two writes, answered at 10 and 20; the slave has them at 13 and 24."""
    ledger = Ledger()
    for number, answered, appeared in ((1, 10.0, 13.0), (2, 20.0, 24.0)):
        ledger.wrote(VISITOR, number, answered)
        ledger.appeared(VISITOR, number, appeared)
        ledger.appeared(VISITOR, number, appeared + 1)  # it is seen again and again
    return ledger


@pytest.mark.parametrize(
    ("sent", "shown", "stale", "possible"),
    [
        (9.9, {0}, False, True),  # nothing was promised yet
        (9.9, {0, 1}, False, True),
        (10.0, {0}, True, False),
        (10.0, {0, 1}, False, False),
        (12.9, {0, 1}, False, False),
        (13.0, {0, 1}, False, True),
        (13.0, {0}, True, True),
        (19.9, {0, 1}, False, True),
        (20.0, {0, 1}, True, False),
        (20.0, {0, 2}, True, False),  # the latest alone is not all
        (20.0, {0, 1, 2}, False, False),
        (24.0, {0, 1, 2}, False, True),
    ],
)
def test_a_read_is_stale_if_it_lacks_a_write_answered_before_it(
    ledger: Ledger, sent: float, shown: set[int], stale: bool, possible: bool
) -> None:
    for server in (MASTER, SLAVE):
        read = Read(VISITOR, sent, frozenset(shown), server)
        assert (ledger.is_stale(read), ledger.was_possible(read)) == (stale, possible)


def test_a_read_that_lacks_a_write_of_another_visitor_is_not_stale(ledger: Ledger) -> None:
    read = Read(STRANGER, 30, frozenset({0}), SLAVE)
    assert (ledger.is_stale(read), ledger.was_possible(read)) == (False, True)


def test_no_read_on_the_slave_is_possible_after_a_write_that_never_reaches_the_slave(ledger: Ledger) -> None:
    ledger.wrote(VISITOR, 3, 30)
    assert not ledger.was_possible(Read(VISITOR, 1e9, frozenset({0, 1, 2, 3}), MASTER))
    assert ledger.delays == [3, 4]


def test_a_tally_counts_stale_reads_and_reads_that_a_slave_could_have_served(ledger: Ledger) -> None:
    everything = frozenset({0, 1, 2})
    for sent, shown, server in (
        (10, everything, MASTER),  # could not be on the slave
        (11, frozenset({0}), SLAVE),  # stale
        (13, everything, SLAVE),  # as it should be
        (14, everything, MASTER),  # could have been on the slave
        (15, everything, MASTER),
        (19, everything, MASTER),
        (23.9, everything, SLAVE),  # the slave had it before the watcher saw that it had
    ):
        ledger.read(Read(VISITOR, sent, shown, server))
    ledger.read(Read(STRANGER, 5, frozenset({0}), SLAVE))
    ledger.failed(VISITOR, "500")
    tally = ledger.tally({VISITOR})
    assert tally == Tally(reads=7, stale=1, on_slave=3, possible=4, taken=1, failed=1)
    assert (tally.stale_share, tally.slave_share, tally.ideal) == (1 / 7, 3 / 7, 4 / 7)
    assert tally.of_ideal == 1 / 4
    assert ledger.failures == ["visitor 7: 500"]
    assert tally + ledger.tally({STRANGER}) == ledger.tally({VISITOR, STRANGER})


def test_the_share_of_slave_reads_is_100_percent_if_no_slave_could_have_served_a_read() -> None:
    assert Tally(reads=9).of_ideal == 1


GOOD = Tally(reads=100, stale=0, on_slave=50, possible=50, taken=50)


def results(lag: int | None = 2, *, ours: Tally = GOOD, other: Tally = GOOD) -> Results:
    made = Results()
    made.add(OURS, lag, Kind.FORM, ours)
    made.add(OTHER, lag, Kind.FORM, other)
    return made


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (results(ours=Tally(100, 1, 51, 50, 50)), r"connect\(\), lag 2 s: 1 of 100 reads were stale"),
        (results(ours=Tally(100, 0, 47, 50, 47)), r"connect\(\), lag 2 s: the slave served 0.940 of what it could"),
        (results(ours=Tally(100, 0, 50, 50, 50, failed=1)), r"connect\(\), lag 2 s: 1 requests have failed"),
        (results(other=Tally(100, 0, 50, 50, 50, failed=1)), "plain Django.*: 1 requests have failed"),
        (results(other=Tally()), "plain Django.*: 0 requests have failed, and 0 reads were answered"),
        (results(ours=Tally(9, 0, 9, 9, 9), other=Tally(9, 0, 9, 9, 9)), "lag 2 s: the slave did not lag"),
        (results(ours=Tally(9), other=Tally(9)), "lag 2 s: the slave got no write"),
        (results(None), "replication stopped: the slave has got writes all the same"),
    ],
    ids=[
        "a stale read of ours",
        "missed slave reads of ours",
        "a failure of ours",
        "a failure of another",
        "no reads of another",
        "no lag",
        "no write on the slave",
        "writes although replication is stopped",
    ],
)
def test_a_result_outside_the_limits_is_a_problem(seen: Results, problem: str) -> None:
    (told,) = problems(seen)
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(told)


@pytest.mark.parametrize(
    "seen",
    [
        results(),
        results(other=Tally(100, 99, 100, 50, 50)),  # what others miss is no problem of ours
        results(other=Tally(100, 0, 0, 50, 0)),
        results(None, ours=Tally(9), other=Tally(9, 9, 9)),
        results(0, ours=Tally(9, 0, 9, 9, 9), other=Tally(9, 0, 9, 9, 9)),
    ],
    ids=["all right", "stale reads of another", "missed slave reads of another", "replication stopped", "lag 0"],
)
def test_a_result_inside_the_limits_is_no_problem(seen: Results) -> None:
    assert problems(seen) == []


def test_the_tables_have_the_results_and_the_delay_of_the_slave() -> None:
    seen = results(other=Tally(1000, 3, 1000, 500, 500))
    seen.delays[2] += [2.96, 2.11]
    text = report(seen, "A machine.")
    assert "| *the slave has a write after* | *2.1 to 3.0 s* |" in text
    assert "A machine." in text
    assert "| replswitch, connect() | 0 % / 50 % |" in text
    assert "| 0.3 % / 100 % |" in text  # what is not nothing does not look like nothing
    assert "| lag 2 s | replswitch, connect() | 100 | 0 | 50 | 50 | 1.000 |" in text


def test_results_are_written_between_the_two_comments_for_results_in_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    save(page, "first")
    assert page.read_text() == f"{BEGIN}\n\nfirst\n\n{END}\n"
    page.write_text(f"# Page\n\n{BEGIN}\nold\n{END}\n\nMore.\n")
    save(page, "second")
    assert page.read_text() == f"# Page\n\n{BEGIN}\n\nsecond\n\n{END}\n\nMore.\n"
    page.write_text("# Another page\n")
    with pytest.raises(SaveError, match="no place for the results"):
        save(page, "third")
    assert page.read_text() == "# Another page\n"


def test_the_chart_is_drawn_or_an_error_names_the_missing_extra(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    if find_spec("matplotlib") is None:
        with pytest.raises(ChartError, match=r"replswitch\[bench\]"):
            draw(results(), file)
        return
    draw(results(), file)
    drawn = file.read_text()
    assert all(words in drawn for words in ("the ideal", "reads on the slave, %", "stale reads, %", "lag 2 s"))
    assert "fill: #ffffff" in drawn  # readable on a dark page, too
    assert len(drawn) < 100_000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--lags 0.5", "'0.5' is no lag: a whole number of seconds up to 600"),
        ("--lags -1", "--lags"),
        ("--lags", "--lags"),
        ("--visitors 0", "'0' is no whole number above 0"),
        ("--seconds x", "'x' is no whole number above 0"),
        ("--setups other", "'other'"),
        ("--kinds other", "'other'"),
        ("--la 1", "--la"),
    ],
)
def test_a_wrong_command_line_is_refused(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        arguments(words.split())
    assert left.value.code == 2
    assert told in capsys.readouterr().err


def test_a_page_without_the_comments_for_results_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "consistency.md").write_text("# Another page\n")
    monkeypatch.setattr(sys, "argv", ["consistency.py", "--out", str(tmp_path)])
    assert main() == 2
    printed = capsys.readouterr()
    assert "no place for the results" in printed.err
    assert printed.out == ""


def test_the_command_line_chooses_lags_sides_and_kinds() -> None:
    plan: Plan = arguments([]).plan
    assert plan.lags == [0, 1, 2, 10, None]
    assert [side.name for side in plan.sides if side.is_ours] == ["connect", "django", "django-pymysql", "flask"]
    assert [plan.seconds_at(lag) for lag in plan.lags] == [5, 5, 5, 25, 25]
    quick: Plan = arguments(["--quick", "--lags", "3", "stopped", "--kinds", "json"]).plan
    assert (quick.lags, quick.kinds, quick.visitors) == ([3, None], [Kind.JSON], 1)
    on_postgresql: Plan = arguments(["--product", "PostgreSQL"]).plan
    ours, others = ([side.name for side in on_postgresql.sides if side.is_ours is is_ours] for is_ours in (True, False))
    assert ours == ["connect", "django-psycopg", "django-psycopg2", "flask"]
    assert others == ["django-replicated", "multidb-router", "plain"]


NO_PAIR: Any = SimpleNamespace(master={}, slaves=[{}])


def test_a_compared_library_whose_server_does_not_start_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SideError, match="'connect' has not started"), OURS.running(NO_PAIR):
        pass
    assert "ConfigurationError" in capfd.readouterr().err


def test_a_compared_library_with_missing_packages_is_an_error_that_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "django.py").write_text("raise ModuleNotFoundError('not here', name='django')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    wanted = r"'plain' needs django, .* pip install 'replswitch\[bench\]'"
    with pytest.raises(SideError, match=wanted), OTHER.running(NO_PAIR):
        pass


@pytest.mark.parametrize(("product", "name"), [("MariaDB", "connect"), ("PostgreSQL", "django-psycopg2")])
def test_a_short_run_with_replswitch_and_plain_django_finds_stale_reads_of_the_latter(product: str, name: str) -> None:
    side = next(each for each in SIDES if each.name == name)
    seen = run(Plan([side, OTHER], [1], [Kind.FORM, Kind.JSON], visitors=1, seconds=5, product=product))
    assert problems(seen) == []
    ours, other = seen.at(side, 1), seen.at(OTHER, 1)
    assert min(seen.delays[1]) >= 0.5  # it counts from the answer, which comes late on a busy machine
    assert 0 < ours.possible < ours.reads
    assert other.stale > 0
    assert other.on_slave == other.reads
    assert other.taken == other.possible
