"""The marker itself: tokens that are signed, read, merged and refused. Properties over what a client may send."""

from __future__ import annotations

import hashlib
import string
import time
from typing import TYPE_CHECKING
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer, URLSafeTimedSerializer
from itsdangerous.encoding import base64_decode

from replswitch import ConfigurationError, Switch
from replswitch.positions import SQLitePosition
from replswitch.request.marker import FUTURE, MAX_LENGTH, MAX_TOKENS, NAMES, Marker, MarkerNames, MarkerSigner
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any
    from wsgiref.types import StartResponse, WSGIEnvironment

NOW = 1_800_000_000.0
SECRET = "a secret"
SIGNER = MarkerSigner(SECRET)

# The machine that runs the tests may be busy: time is not what is tested.
fewer = settings(max_examples=100)

seconds = st.floats(min_value=0, max_value=2**40)
markers = st.builds(Marker, seconds)
texts = st.text(st.characters()) | st.text(string.ascii_letters + string.digits + '=;,." \t\\_-$')


def read(*tokens: str, now: float = NOW, max_age: float = 10) -> Marker | None:
    return SIGNER.read(tokens, now=now, max_age=max_age, position_max_age=max_age)


def state_of(cookie: str, *, now: float | None = None) -> str:
    """The state of a GET that comes with this Cookie header."""
    switch = Switch()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [switch.state.encode()]

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        assert status == "200 OK"
        assert headers == [("Content-Type", "text/plain")]
        return print

    environ: WSGIEnvironment = {"HTTP_COOKIE": cookie}
    setup_testing_defaults(environ)
    return b"".join(ReplicationMiddleware(application, SECRET)(environ, start)).decode()


# Write and read


@fewer
@given(markers)
def test_a_marker_survives_writing_and_reading(marker: Marker) -> None:
    token = SIGNER.write(marker)
    assert set(token) <= set(string.ascii_letters + string.digits + "-_.")
    assert len(token) < 100
    assert marker.written_at is not None
    (found,) = [read(token, now=marker.written_at)]
    assert found is not None
    assert found.written_at == pytest.approx(marker.written_at, abs=0.001)
    assert SIGNER.write(found) == token


@fewer
@given(markers, markers, markers)
def test_merging_markers_is_commutative_associative_and_idempotent(one: Marker, two: Marker, three: Marker) -> None:
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(three) == one.merge(two.merge(three))
    assert one.merge(one) == one
    assert one.merge(two).merge(two) == one.merge(two)


@fewer
@given(markers, markers)
def test_m4_a_merged_marker_requires_the_writes_of_both_markers(one: Marker, two: Marker) -> None:
    assert one.merge(two).written_at == max(one.written_at or 0, two.written_at or 0)


@fewer
@given(st.lists(st.integers(-30, 30), max_size=MAX_TOKENS), st.randoms())
def test_m4_markers_merge_alike_in_any_order(ages: list[int], chance: Any) -> None:
    tokens = [SIGNER.write(Marker(NOW - age)) for age in ages]
    chance.shuffle(tokens)
    holding = [age for age in ages if age <= 10]
    found = read(*tokens)
    assert found == (Marker(NOW - min(holding)) if holding else None)


@fewer
@given(st.floats(min_value=-1e6, max_value=1e6), st.floats(min_value=0.1, max_value=1e5))
@example(0, 10)
@example(10, 10)
@example(-FUTURE, 10)
@example(10.001, 10)
@example(-FUTURE - 0.001, 10)
def test_a_marker_is_valid_from_a_minute_ahead_to_its_greatest_age(age: float, max_age: float) -> None:
    written = round(NOW - age, 3)
    found = SIGNER.read([SIGNER.write(Marker(written))], now=NOW, max_age=max_age, position_max_age=max_age)
    assert found == (Marker(written) if -FUTURE <= NOW - written <= max_age else None)


def test_m2_a_marker_can_be_a_minute_in_the_future() -> None:
    assert FUTURE == 60


# The cookies that a client may send


@fewer
@given(texts)
@example("")
@example("just_updated")
@example("just_updated=")
@example('just_updated="')
@example('just_updated="\\')
@example('just_updated="\\400"')
@example("just_updated=\\777")
@example("just_updated=" + "." * 5000)
@example("just_updated=" + "x" * 100_000)
@example("; ".join(f"just_updated_{number}=x.y" for number in range(500)))
def test_m5_arbitrary_text_as_a_cookie_header_is_ignored_without_an_error(header: str) -> None:
    assert state_of(header) == "slave"


@fewer
@given(st.binary(max_size=200))
def test_m5_arbitrary_bytes_as_a_cookie_header_are_ignored_without_an_error(header: bytes) -> None:
    assert state_of(header.decode("latin-1")) == "slave"
    assert state_of("just_updated=" + header.decode("latin-1")) == "slave"


@fewer
@given(texts, st.sampled_from(["just_updated", "just_updated_1", "just_updated_3"]))
def test_m5_arbitrary_text_as_the_value_of_the_cookie_is_ignored_without_an_error(value: str, name: str) -> None:
    for header in (f"{name}={value}", f'{name}="{value}"', f"a=b; {name}={value}; {name}={value}"):
        assert state_of(header) == "slave"


@fewer
@given(st.text(st.characters()))
def test_m5_arbitrary_text_as_a_marker_is_ignored_without_an_error(token: str) -> None:
    assert read(token) is None
    assert read(f"{token}.{token}", f".{token}", token * 50) is None


@fewer
@given(st.floats(min_value=-50, max_value=9), st.data())
def test_a_marker_that_was_cut_is_ignored(age: float, data: st.DataObject) -> None:
    token = SIGNER.write(Marker(NOW - age))
    begin = data.draw(st.integers(0, len(token) - 1))
    end = data.draw(st.integers(begin, len(token)))
    assume((begin, end) != (0, len(token)))
    assert read(token[begin:end]) is None
    assert read(token[:begin] + token[end:]) is None or begin == end


@fewer
@given(st.integers(-50, 9), st.integers(-50, 9))
def test_a_marker_that_was_spliced_from_two_is_ignored(one: int, two: int) -> None:
    assume(one != two)
    first, second = (SIGNER.write(Marker(NOW - age)).split(".") for age in (one, two))
    assert read(f"{first[0]}.{second[1]}") is None
    assert read(f"{second[0]}.{first[1]}") is None
    assert read(f"{first[0]}{second[0]}.{first[1]}") is None


@fewer
@given(st.integers(-50, 9), st.text(st.characters(max_codepoint=255), min_size=1, max_size=5), st.data())
def test_a_marker_that_was_changed_is_ignored(age: int, change: str, data: st.DataObject) -> None:
    token = SIGNER.write(Marker(NOW - age))
    place = data.draw(st.integers(0, len(token)))
    changed = token[:place] + change + token[place + data.draw(st.integers(0, 3)) :]
    payload, _, signature = changed.rpartition(".")
    if payload == token.rpartition(".")[0]:
        # Base 64 has several ways to write the same bytes. Such a marker says what was signed.
        assume(not same_bytes(signature, token.rpartition(".")[2]))
    assert read(changed) is None


@fewer
@given(st.integers(11, 10**6), st.text(st.characters(max_codepoint=255), max_size=5), st.data())
def test_m5_no_change_makes_an_expired_marker_valid(age: int, change: str, data: st.DataObject) -> None:
    token = SIGNER.write(Marker(NOW - age))
    place = data.draw(st.integers(0, len(token)))
    assert read(token[:place] + change + token[place + data.draw(st.integers(0, 3)) :]) is None


@fewer
@given(st.text(min_size=1))
def test_a_marker_that_was_signed_with_another_secret_is_ignored(other: str) -> None:
    assume(other != SECRET)
    assert read(MarkerSigner(other).write(Marker(NOW))) is None
    for salt in ("replswitch.marker", "replswitch.marker.", "itsdangerous", ""):
        assert read(str(URLSafeSerializer(other, salt=salt).dumps({"t": NOW}))) is None


@fewer
@given(st.text())
def test_m5_a_value_signed_with_another_salt_is_ignored(salt: str) -> None:
    assume(salt != "replswitch.marker")
    arguments = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    assert read(str(URLSafeSerializer(SECRET, salt=salt, signer_kwargs=arguments).dumps({"t": NOW}))) is None
    assert read(str(URLSafeTimedSerializer(SECRET, salt=salt, signer_kwargs=arguments).dumps({"t": NOW}))) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@fewer
@given(json_values)
def test_m5_no_signed_payload_of_a_cookie_raises_an_error(payload: object) -> None:
    arguments = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    serializer = URLSafeSerializer(SECRET, salt="replswitch.marker", signer_kwargs=arguments)
    assert read(str(serializer.dumps({"t": NOW}))) == Marker(NOW)
    read(str(serializer.dumps(payload)))
    found = read(str(serializer.dumps({"t": payload})))
    assert found is None or (found.written_at is not None and -FUTURE <= NOW - found.written_at <= 10)


def test_m5_a_marker_with_a_boolean_as_its_time_is_ignored() -> None:
    arguments = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    token = str(URLSafeSerializer(SECRET, salt="replswitch.marker", signer_kwargs=arguments).dumps({"t": True}))
    assert read(token, now=1.0) is None


def test_m5_a_marker_that_is_too_long_is_not_decoded() -> None:
    token = SIGNER.write(Marker(NOW))
    assert read(token) == Marker(NOW)
    assert read("." * (MAX_LENGTH + 1)) is None
    assert read(token + "=" * (MAX_LENGTH + 1 - len(token))) is None


def forged(number: int) -> str:
    """A token that looks like ours, and is signed with another secret."""
    return MarkerSigner("another secret").write(Marker(NOW + number))


FORGED: dict[str, list[str]] = {
    "short cookies": [f"x.{number}" for number in range(1000)],
    "cookies like markers": [forged(number) for number in range(400)],
    "one cookie repeated": [forged(1)] * 5000,
    "long cookies": ["x" * 5000 + forged(1)] * 40,
}


@pytest.mark.parametrize("some", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("place", [0, 0.5, 1], ids=["valid one first", "valid one in the middle", "valid one last"])
def test_m4_forged_cookies_do_not_hide_a_valid_marker(some: list[str], place: float) -> None:
    before = int(len(some) * place)
    tokens = [*some[:before], MarkerSigner(SECRET).write(Marker(time.time())), *some[before:]]
    assert state_of("; ".join(f"just_updated={token}" for token in tokens)) == "master"


def test_m4_a_limited_number_of_tokens_of_a_request_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than any server lets through, those at both ends: the real one may be before or behind the forged."""
    many, token, looked_at = [forged(number) for number in range(2 * MAX_TOKENS)], SIGNER.write(Marker(NOW)), []
    read_one = MarkerSigner._read_one

    def count(signer: MarkerSigner, token: str) -> Marker | None:
        looked_at.append(token)
        return read_one(signer, token)

    monkeypatch.setattr(MarkerSigner, "_read_one", count)
    assert read(*many, token) == read(token, *many) == Marker(NOW)
    assert len(looked_at) == 2 * MAX_TOKENS


def test_m5_a_marker_too_far_in_the_future_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    signer = MarkerSigner(SECRET)
    for ahead in (FUTURE, FUTURE + 1, FUTURE + 1):
        signer.read([signer.write(Marker(NOW + ahead))], now=NOW, max_age=10, position_max_age=10)
    signer.read([MarkerSigner("another").write(Marker(NOW + 1000))], now=NOW, max_age=10, position_max_age=10)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("A visitor sent a marker (the signed cookie) that is dated 61 s in the future")


def test_m5_a_position_too_far_in_the_future_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    signer = MarkerSigner(SECRET)
    token = signer.write(Marker(positions={"shop": SQLitePosition(1)}, placed_at=NOW + FUTURE + 1))
    assert signer.read([token], now=NOW, max_age=10, position_max_age=10) is None
    assert "61 s in the future" in caplog.text


@pytest.mark.timeout(10)  # WebOb's pattern for cookies took 20 s for the first of these, and 47 s for 60,000 letters
@pytest.mark.parametrize("junk", ["a", "=", '"', "\\", " ", ";", "=;", '\\"', "a="])
def test_a_long_cookie_header_is_read_in_linear_time(junk: str) -> None:
    header = (junk * 40_000)[:40_000]
    assert state_of(f"just_updated{header}") == "slave"
    assert state_of(f"{header}; just_updated={MarkerSigner(SECRET).write(Marker(time.time()))}") in ("slave", "master")


# Names


@fewer
@given(st.integers(1, 40))
def test_m4_the_cookie_names_are_used_in_turn(count: int) -> None:
    names = MarkerNames("name")
    used = [names.next() for _ in range(count)]
    assert len(set(used)) == min(count, NAMES)
    assert set(used) <= set(names.all) == {"name", "name_1", "name_2", "name_3"}
    assert all(used[number] == used[number - NAMES] for number in range(NAMES, count))


def test_m4_processes_begin_with_different_cookie_names() -> None:
    assert {MarkerNames("name").next() for _ in range(200)} == {"name", "name_1", "name_2", "name_3"}


# Secrets


@pytest.mark.parametrize(
    "secrets",
    [["new", "old"], [b"new", "old"], ("new", b"old"), pytest.param(iter(["new", "old"]), id="iterator")],
)
def test_m2_the_newest_secret_signs_and_all_secrets_verify(secrets: Any) -> None:
    signer = MarkerSigner(secrets)
    token = signer.write(Marker(NOW))
    assert MarkerSigner("new").read([token], now=NOW, max_age=1, position_max_age=1) == Marker(NOW)
    assert MarkerSigner("old").read([token], now=NOW, max_age=1, position_max_age=1) is None
    assert signer.read([MarkerSigner("old").write(Marker(NOW))], now=NOW, max_age=1, position_max_age=1) == Marker(NOW)


@pytest.mark.parametrize(
    "secret", [None, "", b"", [], (), [""], [b""], ["good", ""], ["", "good"], [None], [1], 1, 0, 1.5, True, object()]
)
def test_a_signer_with_a_missing_or_wrong_secret_is_refused(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"secret.*Give `secret` a long random string"):
        MarkerSigner(secret)


def same_bytes(one: str, two: str) -> bool:
    """Whether two signatures say the same, as itsdangerous reads them."""
    try:
        return base64_decode(one.encode()) == base64_decode(two.encode())
    except Exception:  # noqa: BLE001 - then it is no signature at all
        return False
