"""The marker with positions: written, read, merged, aged and shortened."""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from replswitch import PositionError
from replswitch.positions import MariaDBPosition, MySQLPosition, Position, PostgreSQLPosition, SQLitePosition
from replswitch.request.marker import LONGEST, MAX_LENGTH, Marker, MarkerSigner, dump, load
from replswitch.request.policy import PERIODS

NOW = 1_800_000_000.0
SIGNER = MarkerSigner("a secret")
UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

# The machine that runs the tests may be busy: time is not what is tested.
fewer = settings(max_examples=50)

milliseconds = st.integers(0, 50_000).map(lambda age: round(NOW - age / 1000, 3))
numbers = st.integers(1, 30)
# Each database keeps to its engine.
positions = st.fixed_dictionaries(
    {},
    optional={
        "shop": numbers.map(lambda number: MariaDBPosition.parse(f"0-1-{number},{number % 3}-1-7")),
        "bücher": st.sets(numbers, min_size=1).map(
            lambda some: MySQLPosition.parse(":".join((UUID, *map(str, some), "jobs", "7")))
        ),
        "log": numbers.map(SQLitePosition),
    },
)
of_one_date = st.builds(Marker, st.none() | milliseconds, positions.filter(bool), milliseconds)
by_position = st.lists(of_one_date, min_size=1, max_size=3).map(lambda some: reduce(Marker.merge, some))
markers = by_position | st.builds(Marker, milliseconds)


def read(*tokens: str, max_age: float = 10, position_max_age: float = 60) -> Marker | None:
    return SIGNER.read(tokens, now=NOW, max_age=max_age, position_max_age=position_max_age)


def asks_for(one: Marker, other: Marker) -> bool:
    """Whether a server that satisfies one marker satisfies the other."""
    return (one.written_at or 0) >= (other.written_at or 0) and all(
        database in one.positions and one.positions[database].includes(position)
        for database, position in other.positions.items()
    )


@fewer
@given(markers)
def test_a_marker_survives_writing_and_reading(marker: Marker) -> None:
    assert load(dump(marker)) == marker
    assert load(json.loads(json.dumps(dump(marker)))) == marker
    assert read(SIGNER.write(marker), max_age=60) == marker


@fewer
@given(markers, markers, markers)
def test_m4_merging_markers_is_commutative_associative_and_idempotent(one: Marker, two: Marker, three: Marker) -> None:
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(three) == one.merge(two.merge(three))
    assert one.merge(one) == one


@fewer
@given(markers, markers)
def test_m4_a_merged_marker_requires_the_writes_of_both_markers(one: Marker, two: Marker) -> None:
    merged = one.merge(two)
    assert asks_for(merged, one)
    assert asks_for(merged, two)
    assert (merged.placed_at or 0) == max(one.placed_at or 0, two.placed_at or 0)


@fewer
@given(st.lists(by_position, min_size=1, max_size=5), st.randoms())
def test_m4_cookies_merge_alike_in_any_order(some: list[Marker], chance: Any) -> None:
    tokens = [SIGNER.write(marker) for marker in some]
    chance.shuffle(tokens)
    found = read(*tokens, max_age=60)
    assert found is not None
    assert all(asks_for(found, marker) for marker in some)


def test_m4_merging_positions_of_two_engines_falls_back_to_time() -> None:
    before = Marker(positions={"shop": SQLitePosition(1)}, placed_at=NOW - 5)
    behind = Marker(positions={"shop": MariaDBPosition.parse("0-1-1")}, placed_at=NOW)
    merged = Marker(NOW, behind.positions, NOW)
    assert before.merge(behind) == behind.merge(before) == merged


def test_m4_a_write_on_a_later_timeline_replaces_what_was_written_before_it() -> None:
    """PostgreSQL: what the later timeline does not contain of the earlier one is lost, on the master as well."""

    def written(place: str, age: float) -> Marker:
        return Marker(positions={"shop": PostgreSQLPosition.parse(place)}, placed_at=NOW - age)

    before, after = written("1:0/90", 5), written("2:0/20", 1)
    assert before.merge(after) == after.merge(before) == after
    both = written("1:0/90,2:0/10", 3)  # from a version that kept both
    assert both.merge(after) == after.merge(both) == after
    behind = written("1:0/95", 0)  # the application is back on the former master
    for merged in (after.merge(behind), behind.merge(after), behind.merge(after).merge(before)):
        assert merged.positions == {"shop": PostgreSQLPosition.parse("1:0/95,2:0/20")}


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        (Marker(NOW - 9), Marker(NOW - 9)),
        (Marker(NOW - 11), None),
        (Marker(None, {"log": SQLitePosition(1)}, NOW - 59), Marker(None, {"log": SQLitePosition(1)}, NOW - 59)),
        (Marker(None, {"log": SQLitePosition(1)}, NOW - 61), None),
        (Marker(NOW - 11, {"log": SQLitePosition(1)}, NOW - 59), Marker(None, {"log": SQLitePosition(1)}, NOW - 59)),
        (Marker(NOW - 9, {"log": SQLitePosition(1)}, NOW - 61), Marker(NOW - 9)),
        (Marker(None, {"log": SQLitePosition(1)}, NOW + 60), Marker(None, {"log": SQLitePosition(1)}, NOW + 60)),
        (Marker(None, {"log": SQLitePosition(1)}, NOW + 61), None),
    ],
    ids=[
        "time not too old",
        "time too old",
        "position not too old",
        "position too old",
        "only time too old",
        "only position too old",
        "position a minute ahead",
        "position too far ahead",
    ],
)
def test_m2_the_time_and_each_position_expire_separately(marker: Marker, holds: Marker | None) -> None:
    assert read(SIGNER.write(marker)) == holds


# Each position is dated by itself (M2)


def placed(text: str, age: float, name: str = "shop") -> Marker:
    return Marker(positions={name: MariaDBPosition.parse(text)}, placed_at=NOW - age)


def test_m2_merging_does_not_renew_the_date_of_a_position_that_was_not_written_again() -> None:
    """No slave ever has it, because the master does not."""
    never, written = placed("0-1-1000", 50), placed("0-1-7", 0)
    merged = never.merge(written)
    assert merged == written.merge(never)
    assert merged.positions == never.positions
    later = merged.holding(NOW + 11, max_age=10, position_max_age=60)
    assert later == written


def test_m2_a_later_position_replaces_an_earlier_one_that_it_includes() -> None:
    assert placed("0-1-7", 50).merge(placed("0-1-8", 0)) == placed("0-1-8", 0)


def test_m2_the_position_of_each_replicated_set_expires_by_its_own_date() -> None:
    merged = placed("0-1-7", 50, "shop").merge(placed("0-1-8", 0, "log"))
    assert set(merged.positions) == {"shop", "log"}
    assert merged.holding(NOW + 11, max_age=10, position_max_age=60) == placed("0-1-8", 0, "log")


def test_m2_dates_of_merged_positions_do_not_depend_on_the_order() -> None:
    one, two, three = placed("0-1-5", 5), placed("1-1-7", 5), placed("0-1-6", 0)
    assert one.merge(three).merge(two) == one.merge(two).merge(three) == two.merge(three).merge(one)


one_position = st.none() | positions.filter(bool).map(lambda some: next(iter(some.values())))
some_writes = st.lists(
    st.tuples(st.sampled_from(["shop", "log"]), one_position, milliseconds),
    max_size=5,
    unique_by=lambda write: write[2],
)


@fewer
@given(some_writes)
def test_m4_writes_merge_as_their_markers_do(some: list[tuple[str, Position | None, float]]) -> None:
    writes = sorted(some, key=lambda write: write[2])
    expected = Marker()
    for name, position, time in writes:
        wrote = Marker(time) if position is None else Marker(positions={name: position}, placed_at=time)
        expected = expected.merge(wrote, inf)
    assert Marker().with_writes(*writes) == expected
    assert Marker().with_writes(*writes[:2]).with_writes(*writes[2:]) == expected


@fewer
@given(by_position, st.integers(0, 120))
def test_m2_a_marker_holds_only_the_positions_written_within_position_max_age(marker: Marker, age: int) -> None:
    holds = marker.holding(NOW + 10, max_age=0, position_max_age=age)
    since = [positions for time, positions in marker.steps if NOW + 10 - time <= age]
    assert (None if holds is None else holds.positions) == (since[-1] if since else None)


def test_m2_a_visitor_who_writes_all_the_time_has_a_short_marker() -> None:
    """On MySQL, the position of one write does not include that of the one before."""
    period = 3600 / PERIODS
    marker = Marker()
    for number in range(1, 361):
        wrote = Marker(positions={"shop": MySQLPosition.parse(f"{UUID}:{number}")}, placed_at=NOW + 10 * number)
        now = NOW + 10 * number
        marker = wrote.merge(marker.holding(now, max_age=10, position_max_age=3600) or Marker(), period)
        assert len(SIGNER.write(marker)) < 800
        assert len(marker.steps) <= PERIODS + 1
    dates = [time for time, _ in marker.steps]
    assert dates[0] == NOW + 3600
    assert dates == sorted(dates, reverse=True)


def test_m2_positions_of_one_period_all_have_the_latest_date_of_the_period() -> None:
    never, written = placed("0-1-1000", 50), placed("0-1-7", 1)
    assert written.merge(never, 10).steps == ((NOW - 1, written.positions), (NOW - 50, never.positions))
    assert written.merge(never, 1000).steps == ((NOW - 1, never.positions),)


def test_m2_a_marker_in_the_older_format_with_one_date_for_all_positions_is_read() -> None:
    payload = {"t": NOW, "at": NOW - 1, "p": {"shop": "mariadb:0-1-7", "log": "sqlite:1"}}
    token = str(SIGNER._serializer.dumps(payload))
    positions = {"shop": MariaDBPosition.parse("0-1-7"), "log": SQLitePosition(1)}
    assert read(token) == Marker(NOW, positions, NOW - 1)


# In a cookie


def long_position(ranges: int) -> Position:
    return MySQLPosition.parse(":".join((UUID, *map(str, range(1_000_001, 1_000_001 + 2 * ranges, 2)))))


@pytest.mark.parametrize(
    "some",
    [
        {"shop": long_position(2000)},
        {hashlib.sha256(bytes([n])).hexdigest(): MariaDBPosition.parse("0-1-1") for n in range(60)},
    ],
    ids=["a long position", "many long names"],
)
def test_a_marker_too_long_for_a_cookie_holds_by_time(some: dict[str, Position]) -> None:
    assert SIGNER.write_short(Marker(NOW - 5, some, NOW))[1] == Marker(NOW)
    assert SIGNER.write_short(Marker(NOW, some, NOW - 5))[1] == Marker(NOW)


@pytest.mark.parametrize("ranges", [1, 100, 200, 300, 400, 500, 1000])
def test_a_marker_that_fits_a_cookie_keeps_its_positions_and_a_longer_marker_holds_by_time(ranges: int) -> None:
    marker = Marker(None, {"shop": long_position(ranges), "bücher": SQLitePosition(1)}, NOW)
    token, written = SIGNER.write_short(marker)
    assert len(token) <= LONGEST < MAX_LENGTH - 1000  # a cookie has attributes, and there are other cookies
    assert read(token) == written
    assert written == (marker if len(SIGNER.write(marker)) <= LONGEST else Marker(NOW))


def test_a_short_marker_is_written_unchanged() -> None:
    marker = Marker(None, {"shop": long_position(100)}, NOW)
    assert SIGNER.write_short(marker)[1] is marker


# The possible contents of a marker, and of a job's token


@pytest.mark.parametrize(
    "payload",
    [
        None, [], 7, "t", {"at": NOW}, {"at": NOW, "p": None}, {"at": NOW, "p": []}, {"at": NOW, "p": {"shop": 7}},
        {"at": NOW, "p": {"shop": "0-1-42"}}, {"at": NOW, "p": {"shop": "mariadb:x"}}, {"at": NOW, "p": {"shop": None}},
        {"at": True, "p": {}}, {"at": "now", "p": {}}, {"at": NOW, "p": {}, "o": 7}, {"at": NOW, "p": {}, "o": [[1]]},
        {"at": NOW, "p": {}, "o": [[None, {}]]}, {"at": NOW, "p": {}, "o": [[1, 2]]},
        {"t": 10**400}, {"t": []}, {"at": {}, "p": {}},
    ],
)  # fmt: skip
def test_m5_a_signed_payload_that_is_no_marker_is_refused(payload: object) -> None:
    with pytest.raises(PositionError):
        load(payload)
    arguments = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    serializer = URLSafeSerializer("a secret", salt="replswitch.marker", signer_kwargs=arguments)
    assert read(str(serializer.dumps(payload))) is None


@pytest.mark.parametrize("payload", [{}, {"t": None}, {"p": {"shop": "mariadb:0-1-1"}}, {"t": float("nan")}])
def test_an_empty_marker_is_not_valid(payload: dict[str, Any]) -> None:
    assert load(payload).holding(NOW, max_age=10, position_max_age=60) is None


@fewer
@given(by_position, st.data())
def test_m5_a_marker_changed_in_any_character_is_ignored(marker: Marker, data: st.DataObject) -> None:
    body, _, signature = SIGNER.write(marker).rpartition(".")
    place = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.sampled_from("AZaz09-_"))
    if other != body[place]:
        assert read(f"{body[:place]}{other}{body[place + 1 :]}.{signature}") is None


@fewer
@given(milliseconds)
def test_a_marker_in_the_older_format_without_positions_is_read(written_at: float) -> None:
    arguments = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    token = str(
        URLSafeSerializer("a secret", salt="replswitch.marker", signer_kwargs=arguments).dumps({"t": written_at})
    )
    assert read(token, max_age=60) == Marker(written_at)
