"""What an OK packet of MariaDB or MySQL says of the session: the GTID of the commit that it answers, and changes.

The layout: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_ok_packet.html and
https://mariadb.com/kb/en/ok_packet/. An entry of a type that is not known is skipped, as both ask.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from replswitch.errors import PositionError

# The types of entries that carry a GTID: MariaDB tracks the variable last_gtid, MySQL has a type for it.
_SYSTEM_VARIABLE: Final = 0
_GTIDS: Final = 3

# The session's variables, its database, or something else of it has changed.
_STATE_CHANGE: Final = 2

# The lengths of integers by their first byte: those below stand for themselves.
_SIZES: Final = {0xFC: 2, 0xFD: 3, 0xFE: 8}


def status_of(packet: bytes) -> tuple[int, int, int]:
    """Return the status flags of an OK packet, its number of warnings, and where what follows them begins.

    Args:
        packet: the packet with its header, which is 0x00, or 0xFE behind the rows of a result.

    Raises:
        PositionError: the packet is cut off.
    """
    at = 1
    for _ in ("affected rows", "last insert id"):
        _, at = _integer(packet, at)
    if len(packet) < at + 4:
        raise _cut_off()
    return int.from_bytes(packet[at : at + 2], "little"), int.from_bytes(packet[at + 2 : at + 4], "little"), at + 4


class SessionTrack(NamedTuple):
    """What an OK packet says of the session.

    Attributes:
        gtid: of the commit that it answers; empty without one.
        changed: the session itself has changed: a variable, the current database, a prepared statement.
    """

    gtid: str
    changed: bool


def session_track(rest: bytes) -> SessionTrack:
    """Return what an OK packet says of the session.

    Args:
        rest: what follows the number of warnings, in a packet with the status flag SERVER_SESSION_STATE_CHANGED.

    Raises:
        PositionError: the packet is malformed.
    """
    _, at = _string(rest, 0)  # for people
    changes, _ = _string(rest, at)
    gtid, changed, at = "", False, 0
    while at < len(changes):
        kind = changes[at]
        entry, at = _string(changes, at + 1)
        if kind == _SYSTEM_VARIABLE:
            gtid = _variables(entry).get("last_gtid", gtid)
        elif kind == _GTIDS:
            gtid = _text(_string(entry, 1)[0])  # behind a byte for the encoding, of which there is one
        elif kind == _STATE_CHANGE:
            changed = True
    return SessionTrack(gtid, changed)


def _variables(entry: bytes) -> dict[str, str]:
    variables, at = {}, 0
    while at < len(entry):
        name, at = _string(entry, at)
        value, at = _string(entry, at)
        variables[_text(name)] = _text(value)
    return variables


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the string that begins there, behind its length, and where it ends."""
    length, at = _integer(data, at)
    if at + length > len(data):
        raise _cut_off()
    return data[at : at + length], at + length


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer of variable length that begins there, and where it ends."""
    if at >= len(data):
        raise _cut_off()
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    size = _SIZES.get(first)
    if size is None or at + 1 + size > len(data):
        raise _cut_off()
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PositionError("The server's answer is malformed: what it tells of the session is no text.") from error


def _cut_off() -> PositionError:
    return PositionError("The server's answer is malformed: what it tells of the session is cut off.")
