"""Read the session state in an OK packet of MariaDB or MySQL (session tracking)."""

from __future__ import annotations

import struct
from typing import Any, Final

from replswitch.errors import PositionError

# The session state in an OK packet: the GTID of the acknowledged commit, and changes of the session. The layout:
# https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_ok_packet.html and
# https://mariadb.com/kb/en/ok_packet/. Entries of unknown types are skipped, as both pages require.
#
# The types of entries that carry a GTID: MariaDB tracks the variable last_gtid, MySQL has a type for it.
_SYSTEM_VARIABLE: Final = 0
_GTIDS: Final = 3

# The variable of a session's read-only mode: MariaDB's name, and MySQL's.
_READ_ONLY: Final = {b"tx_read_only", b"transaction_read_only"}

# The type of entries which say that a variable of the session, its database, or other state has changed.
_STATE_CHANGE: Final = 2

#: SERVER_SESSION_STATE_CHANGED: the answer has a change that the session tracks.
#: https://dev.mysql.com/doc/dev/mysql-server/latest/mysql__com_8h.html
SESSION_CHANGED: Final = 0x4000

#: The settings that limit the changes for which `SESSION_CHANGED` is set.
TRACK: Final = "session_track_schema = OFF, session_track_state_change = ON, session_track_transaction_info = OFF"

# The lengths of longer integers by their first byte.
_SIZES: Final = {0xFC: 2, 0xFD: 3, 0xFE: 8}

# The errors for packets that are cut off, and for wrong lengths and texts.
_MALFORMED: Final = (AssertionError, LookupError, ValueError, struct.error)


def status_of(packet: Any) -> tuple[int, int, bytes]:
    """Return the status flags of an OK packet, its number of warnings, and the bytes after them.

    Args:
        packet: a packet of PyMySQL with its header, which is 0x00, or 0xFE after the rows of a result.

    Raises:
        PositionError: the packet is cut off.
    """
    try:
        packet.read(1)
        packet.read_length_encoded_integer()  # affected rows
        packet.read_length_encoded_integer()  # last insert id
        status, warnings = packet.read_struct("<HH")
    except _MALFORMED as error:
        raise PositionError("The server's answer is malformed, because it is cut off.") from error
    return status, warnings, packet.read_all()


def session_track(rest: bytes) -> tuple[str, bool, bool]:
    """Return the session state in an OK packet.

    Args:
        rest: the bytes after the number of warnings, in a packet with the flag SERVER_SESSION_STATE_CHANGED.

    Returns:
        the GTID of the acknowledged commit, empty without one; whether the session itself has changed (such as a
        variable, the current database, or a prepared statement); and whether its read-only mode has ended.

    Raises:
        PositionError: the packet is malformed.
    """
    gtid, changed, writable = "", False, False
    try:
        _, end = _string(rest, 0)  # a message for people
        (changes, _), end = _string(rest, end), 0
        while end < len(changes):
            kind = changes[end]
            entry, end = _string(changes, end + 1)
            if kind == _SYSTEM_VARIABLE:
                at = 0
                while at < len(entry):
                    name, at = _string(entry, at)
                    value, at = _string(entry, at)
                    gtid = value.decode() if name == b"last_gtid" else gtid
                    writable = writable or (name in _READ_ONLY and value == b"OFF")
            elif kind == _GTIDS:
                gtid = _string(entry, 1)[0].decode()  # after a byte for the encoding, which is always the same
            elif kind == _STATE_CHANGE:
                changed = True
    except _MALFORMED as error:
        raise PositionError("The server's answer is malformed, so its session state cannot be read.") from error
    return gtid, changed, writable


def tracking(*, is_mariadb: bool) -> str:
    """Return the statement that makes the server report the position of each commit in its answer."""
    track = "session_track_gtids = OWN_GTID, session_track_system_variables = ''"
    if is_mariadb:
        track = "session_track_system_variables = 'last_gtid'"
    return f"SET SESSION {track}, {TRACK}"


def refusing_writes(*, is_mariadb: bool, tracks: bool) -> str:
    """Return the statement that makes a session read-only. The server then reports writes and the end of this mode.

    Args:
        is_mariadb: the server is MariaDB.
        tracks: the connection has the capability CLIENT_SESSION_TRACK.
    """
    variable = "tx_read_only" if is_mariadb else "transaction_read_only"
    gtids, reported = ("", ",last_gtid") if is_mariadb else ("session_track_gtids = OWN_GTID, ", "")
    variables = f", {gtids}{TRACK}, session_track_system_variables = '{variable}{reported}'" if tracks else ""
    return f"SET SESSION {variable} = ON{variables}"


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the length-encoded string at an offset, and the offset of its end."""
    length, at = data[at], at + 1
    if length > 0xFA:
        size = _SIZES[length]
        length, at = int.from_bytes(data[at : at + size], "little"), at + size
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length
