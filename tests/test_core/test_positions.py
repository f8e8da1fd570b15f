"""Positions of every engine: a later-of-two that never goes back, and texts that are read as they were written."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymysql.protocol import MysqlPacket

from replswitch import PositionError
from replswitch.drivers.session_track import session_track, status_of
from replswitch.positions import (
    MariaDBPosition,
    MySQLPosition,
    Position,
    PostgreSQLPosition,
    SQLitePosition,
    read,
    write,
)

# The machine that runs the tests may be busy: time is not what is tested.
fewer = settings(max_examples=50)

UUIDS = ("3e11fa47-71ca-11e1-9e33-c80aa9429562", "00000000-0000-0000-0000-000000000001")
TAGS = ("", "jobs", "_a1")
HIGHEST = 2**63 - 2

# A sequence number of MariaDB belongs to one transaction, so the server follows from the other two.
mariadb_gtids = st.tuples(st.integers(0, 3) | st.just(2**32 - 1), st.integers(0, 20) | st.just(2**64 - 1)).map(
    lambda gtid: f"{gtid[0]}-{gtid[1] % 3 + 1}-{gtid[1]}"
)
ranges = st.tuples(st.integers(1, 30) | st.integers(HIGHEST - 3, HIGHEST), st.integers(0, 5)).map(
    lambda it: f"{it[0]}-{min(it[0] + it[1], HIGHEST)}" if it[1] else f"{it[0]}"
)
mysql_sources = st.tuples(
    st.sampled_from(UUIDS),
    st.lists(st.tuples(st.sampled_from(TAGS), st.lists(ranges, min_size=1, max_size=3)), min_size=1, max_size=3),
).map(
    # A range without a tag can only stand in front.
    lambda it: ":".join(
        (it[0], *(word for tag, numbers in sorted(it[1]) for word in (*([tag] if tag else ()), *numbers)))
    )
)
postgresql_places = st.tuples(
    st.integers(1, 3) | st.just(2**32 - 1), st.integers(0, 20) | st.integers(2**32 - 2, 2**32 + 2) | st.just(2**64 - 1)
).map(lambda it: f"{it[0]}:{it[1] >> 32:X}/{it[1] % 2**32:X}")
POSITIONS: dict[type[Position], st.SearchStrategy[Any]] = {
    MariaDBPosition: st.lists(mariadb_gtids, max_size=4).map(lambda gtids: MariaDBPosition.parse(",".join(gtids))),
    MySQLPosition: st.lists(mysql_sources, max_size=3).map(lambda sources: MySQLPosition.parse(", ".join(sources))),
    PostgreSQLPosition: st.lists(postgresql_places, min_size=1, max_size=3).map(
        lambda places: PostgreSQLPosition.parse(",".join(places))
    ),
    SQLitePosition: st.integers(0, 10**19 - 1).map(SQLitePosition),
}
kinds = pytest.mark.parametrize("kind", POSITIONS)


@kinds
@fewer
@given(st.data())
def test_merging_positions_is_commutative_associative_and_idempotent(kind: type[Position], data: st.DataObject) -> None:
    one, two, three = (data.draw(POSITIONS[kind]) for _ in range(3))
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(three) == one.merge(two.merge(three))
    assert one.merge(one) == one


@kinds
@fewer
@given(st.data())
def test_a_merged_position_is_the_earliest_that_includes_both(kind: type[Position], data: st.DataObject) -> None:
    one, two, three = (data.draw(POSITIONS[kind]) for _ in range(3))
    merged = one.merge(two)
    assert merged.includes(one)
    assert merged.includes(two)
    assert three.includes(merged) == (three.includes(one) and three.includes(two))


@kinds
@fewer
@given(st.data())
def test_includes_is_a_partial_order_that_agrees_with_merge(kind: type[Position], data: st.DataObject) -> None:
    one, two, three = (data.draw(POSITIONS[kind]) for _ in range(3))
    assert one.includes(one)
    assert one.includes(two) == (one.merge(two) == one)
    assert (one.includes(two) and two.includes(one)) == (one == two)
    assert one.includes(three) or not (one.includes(two) and two.includes(three))


@kinds
@fewer
@given(st.data())
def test_a_position_survives_writing_and_reading(kind: type[Position], data: st.DataObject) -> None:
    position = data.draw(POSITIONS[kind])
    assert kind.parse(str(position)) == position
    assert str(kind.parse(str(position))) == str(position)
    assert read(write(position)) == position


def test_a_position_of_another_engine_is_never_included() -> None:
    positions = [
        SQLitePosition(1), MariaDBPosition.parse(""), MySQLPosition.parse(""), PostgreSQLPosition.parse("1:0/0")
    ]  # fmt: skip
    for one in positions:
        assert [one.includes(other) for other in positions] == [one is other for other in positions]


class TestMariaDB:
    def test_positions_compare_by_sequence_and_not_by_server(self) -> None:
        # After a promotion another server continues the sequence of the domain.
        assert MariaDBPosition.parse("0-2-43").includes(MariaDBPosition.parse("0-1-42"))
        assert not MariaDBPosition.parse("0-1-42").includes(MariaDBPosition.parse("0-2-43"))

    def test_a_position_includes_another_only_if_each_domain_does(self) -> None:
        here = MariaDBPosition.parse("0-1-42,7-1-5")
        assert here.includes(MariaDBPosition.parse("7-3-5"))
        assert not here.includes(MariaDBPosition.parse("0-1-1,7-1-6"))
        assert not here.includes(MariaDBPosition.parse("1-1-1"))

    def test_the_earlier_of_two_positions_is_the_part_that_both_include(self) -> None:
        here = MariaDBPosition.parse("0-1-42,7-1-5,8-1-1")
        assert str(here.earlier(MariaDBPosition.parse("0-1-40,7-1-6,9-1-1"))) == "0-1-40,7-1-5"
        assert str(here.earlier(MariaDBPosition.parse(""))) == ""

    def test_a_position_is_written_sorted_by_domain(self) -> None:
        assert str(MariaDBPosition.parse("7-1-5, 0-1-42,\n7-2-6")) == "0-1-42,7-2-6"

    @pytest.mark.parametrize(
        "text",
        [" ", ",", "0-1-42,", "0-1", "0-1-2-3", "-1-2-3", "a-1-2", "0-1-+2", "0_1_2", "\u0660-1-2", "4294967296-1-1",
         "0-1-18446744073709551616", "0-1-42;DROP TABLE message", "1" * 5000],
    )  # fmt: skip
    def test_a_text_that_is_not_a_gtid_list_is_refused(self, text: str) -> None:
        with pytest.raises(PositionError, match="not a GTID of MariaDB"):
            MariaDBPosition.parse(text)


class TestMySQL:
    A, B = UUIDS

    def test_adjoining_ranges_of_a_gtid_set_are_merged(self) -> None:
        assert str(MySQLPosition.parse(f"{self.A}:4-5:1-3:7")) == f"{self.A}:1-5:7"

    def test_a_gtid_set_is_written_as_mysql_writes_it(self) -> None:
        """As MySQL 8.3 and later print a set with tags: by UUID, those without a tag first."""
        position = MySQLPosition.parse(f"{self.A.upper()}:jobs:7:1-3,\n{self.B}:1,{self.A}:1-57:60")
        assert str(position) == f"{self.B}:1,{self.A}:1-57:60:jobs:1-3:7"

    def test_the_transactions_of_a_tag_are_separate(self) -> None:
        here = MySQLPosition.parse(f"{self.A}:1-5:jobs:1-2")
        assert here.includes(MySQLPosition.parse(f"{self.A}:jobs:2"))
        assert not here.includes(MySQLPosition.parse(f"{self.A}:jobs:3"))
        assert not here.includes(MySQLPosition.parse(f"{self.A}:other:1"))

    def test_a_set_with_a_gap_does_not_include_the_gap(self) -> None:
        here = MySQLPosition.parse(f"{self.A}:1-5:7-9")
        assert here.includes(MySQLPosition.parse(f"{self.A}:2-3:8"))
        assert not here.includes(MySQLPosition.parse(f"{self.A}:5-7"))

    def test_written_by_keeps_only_the_gtids_of_one_server(self) -> None:
        position = MySQLPosition.parse(f"{self.A}:1-5:jobs:1,{self.B}:1-9")
        assert str(position.written_by(self.A.upper())) == f"{self.A}:1-5:jobs:1"
        assert str(position.written_by("none")) == ""

    @pytest.mark.parametrize(
        "part",
        ["", ":", ":0", ":1-", ":2-1", ":-1", ":1-2-3", ":jobs", ":1:jobs", ":jobs:", ":1:0", ":9jobs:1", ":jo-bs:1",
         f":{'a' * 33}:1", f":{2**63 - 1}", ":\u0663", ":1 OR 1", f":{'1' * 5000}"],
    )  # fmt: skip
    def test_a_text_that_is_not_a_gtid_set_is_refused(self, part: str) -> None:
        for text in (f"{self.A}{part}", f"{self.B}:1,{self.A}{part}", f"{self.A[:-1]}:1"):
            with pytest.raises(PositionError, match="not a GTID set of MySQL"):
                MySQLPosition.parse(text)


class TestPostgreSQL:
    def test_lsns_are_compared_as_numbers(self) -> None:
        assert PostgreSQLPosition.parse("1:10/0").includes(PostgreSQLPosition.parse("1:9/FFFFFFFF"))
        assert not PostgreSQLPosition.parse("1:0/9").includes(PostgreSQLPosition.parse("1:0/10"))

    def test_a_position_on_an_old_timeline_is_never_reached_on_a_new_timeline(self) -> None:
        """The old master may have written it after the place where the timelines part: it is lost."""
        assert not PostgreSQLPosition.parse("2:0/9000000").includes(PostgreSQLPosition.parse("1:0/1000000"))
        assert not PostgreSQLPosition.parse("1:0/9000000").includes(PostgreSQLPosition.parse("2:0/1000000"))

    def test_a_position_after_writes_on_two_timelines_requires_both_timelines(self) -> None:
        both = PostgreSQLPosition.parse("2:0/5").merge(PostgreSQLPosition.parse("1:0/9"))
        assert str(both) == "1:0/9,2:0/5"
        assert not PostgreSQLPosition.parse("2:0/7").includes(both)

    def test_the_master_of_a_later_timeline_has_reached_the_part_of_an_earlier_timeline_that_is_not_lost(self) -> None:
        written = PostgreSQLPosition.parse("1:0/9,2:0/5")
        assert written.is_written_by((2, "7412", "1.5"))
        assert written.is_written_by((3, "7412", "1.5"))
        assert not written.is_written_by((1, "7412", "1.5"))
        assert not written.is_written_by("7412")

    @pytest.mark.parametrize(
        ("lsn", "written"),
        [
            ("0/4000", "0/4000"),
            ("0/4018", "0/4000"),  # after the header of a page
            ("0/4028", "0/4028"),  # after a record of 16 bytes in it
            ("0/4020", "0/4020"),
            ("A/200028", "A/200000"),  # after the header of a segment
            ("A/200018", "A/200000"),
            ("A/200040", "A/200040"),
        ],
    )
    def test_a_position_after_the_header_of_a_wal_page_is_stored_as_the_start_of_the_page(
        self, lsn: str, written: str
    ) -> None:
        position = PostgreSQLPosition.after_insert(7, lsn, page=8192, segment=2**20)
        assert str(position) == f"7:{written}"

    @pytest.mark.parametrize(
        "text",
        ["", " ", ",", "1:0/1,", "0/16B3748", "1:0", "1:0/", "1:/1", "0:0/1", "01:0/1", "-1:0/1", "4294967296:0/1",
         "1:0/123456789", "1:123456789/0", "1:0/G", "\u0661:0/1", "1:0/1;DROP TABLE message", "1:0/1/2", "1" * 5000],
    )  # fmt: skip
    def test_a_text_that_is_not_a_list_of_timelines_and_lsns_is_refused(self, text: str) -> None:
        with pytest.raises(PositionError, match="not a timeline and an LSN of PostgreSQL"):
            PostgreSQLPosition.parse(text)


@pytest.mark.parametrize("text", ["", ":", "0-1-42", "postgresql:0/16B3748", "MARIADB:0-1-1", " sqlite:1", "sqlite:-1"])
def test_a_text_without_a_known_engine_and_its_position_is_refused(text: str) -> None:
    with pytest.raises(PositionError):
        read(text)


# The texts that a server or a client may send


def changed(data: bytes, chance: random.Random) -> bytes:
    """Some bytes replaced, put in, taken out, or cut off."""
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(mutated) + 1)
        byte = chance.choice((0, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF, *b"-:,09az", chance.randrange(256)))
        mutated[place : place + chance.randint(0, 2)] = bytes([byte] * chance.randint(0, 2))
    return bytes(mutated[: chance.randrange(len(mutated) + 1)] if chance.random() < 0.1 else mutated)


def test_mutated_positions_raise_nothing_but_our_own_error() -> None:
    chance = random.Random(1)
    texts = [
        "mariadb:0-1-42,7-2-9",
        f"mysql:{UUIDS[0]}:1-57:60:jobs:1-3,{UUIDS[1]}:7",
        "sqlite:1800000000000000000",
        "postgresql:1:0/16B3748,12:A/2000028",
    ]
    refused = 0
    for number in range(16_000):
        text = changed(texts[number % 4].encode(), chance).decode("utf-8", "replace")
        try:
            position = read(text)
        except PositionError:
            refused += 1
        else:
            assert read(write(position)) == position
    assert 8_000 < refused < 16_000


def string(text: bytes) -> bytes:
    """A string after its length, as in the protocol: in one byte, or in two after 0xFC."""
    return (bytes([len(text)]) if len(text) < 0xFB else b"\xfc" + len(text).to_bytes(2, "little")) + text


def ok_packet(*entries: tuple[int, bytes], header: int = 0, info: bytes = b"") -> bytes:
    """An OK packet with one row changed, autocommit, a changed session, and these entries."""
    changes = b"".join(bytes([kind]) + string(entry) for kind, entry in entries)
    return bytes([header]) + b"\x01\xfc\x00\x01" + b"\x02\x40" + b"\x00\x00" + string(info) + string(changes)


MARIADB_TELLS = (0, string(b"last_gtid") + string(b"0-1-42"))
MYSQL_TELLS = (3, b"\0" + string(f"{UUIDS[0]}:jobs:57".encode()))


def told(packet: bytes) -> str:
    _, _, rest = status_of(MysqlPacket(packet, "ascii"))
    return session_track(rest)[0]


@pytest.mark.parametrize("header", [0x00, 0xFE], ids=["header of OK", "header of EOF"])
@pytest.mark.parametrize(
    "info", [b"", b"Rows matched: 1  Changed: 1  Warnings: 0", b"x" * 300], ids=["no info", "short info", "long info"]
)
@pytest.mark.parametrize(
    ("entry", "gtid"), [(MARIADB_TELLS, "0-1-42"), (MYSQL_TELLS, f"{UUIDS[0]}:jobs:57")], ids=["MariaDB", "MySQL"]
)
def test_the_gtid_is_read_from_an_ok_packet_with_other_session_changes(
    header: int, info: bytes, entry: tuple[int, bytes], gtid: str
) -> None:
    schema, state, unknown = (1, string(b"shop")), (2, string(b"1")), (200, b"\xff\xfb\xfe")
    others = (0, string(b"autocommit") + string(b"ON") + string(b"time_zone") + string(b"UTC"))
    for entries in ((entry,), (schema, entry), (unknown, state, entry, unknown), (others, entry, others)):
        packet = ok_packet(*entries, header=header, info=info)
        assert status_of(MysqlPacket(packet, "ascii"))[:2] == (0x4002, 0)
        assert told(packet) == gtid
    assert told(ok_packet(schema, unknown, others, header=header, info=info)) == ""


def test_mutated_ok_packets_raise_nothing_but_our_own_error() -> None:
    chance = random.Random(2)
    packets = [ok_packet(MARIADB_TELLS), ok_packet((1, b"x" * 260), MYSQL_TELLS, info=b"x" * 300), ok_packet()]
    refused = 0
    for number in range(12_000):
        packet = changed(packets[number % 3], chance)
        try:
            gtid = told(packet)
            (MariaDBPosition if number % 3 == 0 else MySQLPosition).parse(gtid)
        except PositionError:
            refused += 1
    assert 1_000 < refused < 11_000


@pytest.mark.timeout(20)  # MariaDB's took 43 s when each GTID was merged with all before it
@pytest.mark.parametrize(
    "text",
    [
        "mariadb:" + ",".join(f"{number}-1-7" for number in range(20_000)),
        f"mysql:{UUIDS[0]}" + "".join(f":{2 * number + 1}" for number in range(20_000)),
        "mysql:" + ",".join(f"3e11fa47-71ca-11e1-9e33-{number:012x}:1-5" for number in range(20_000)),
        "postgresql:" + ",".join(f"{number}:0/{number:X}" for number in range(1, 20_000)),
    ],
    ids=["domains", "ranges", "sources", "timelines"],
)
def test_m4_a_long_position_is_read_in_linear_time(text: str) -> None:
    position = read(text)
    assert write(position) == text
    assert position.merge(position) == position
