"""Bytes of keyed, windowed state: fixed layout, versioned, checksummed.

Value: version (1 byte), CRC-32 of the state's shape (4), CRC-32 of the payload (4), payload. A store whose shape
changed, or whose bytes did, is refused: old bytes are never read as new ones. Big-endian throughout.
Key: the key columns as a JSON array, then the window start in ms as 8 bytes with the sign bit flipped, so that
windows of one key sort by time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import orjson

from streampipe.errors import StateCorrupted

VERSION = 1
_HEAD = struct.Struct(">BII")
_START = struct.Struct(">Q")
_SIGN = 1 << 63

KeyValues = tuple[object, ...]


def window_key(key: KeyValues, start: int) -> bytes:
    """State key of a (key, window)."""
    return orjson.dumps(key) + _START.pack(start + _SIGN)


def parse_window_key(data: bytes) -> tuple[KeyValues, int]:
    """The (key, window start) of a state key. Raises StateCorrupted."""
    try:
        return tuple(orjson.loads(data[:-8])), _START.unpack(data[-8:])[0] - _SIGN
    except (ValueError, struct.error, TypeError):
        raise StateCorrupted(
            "a state key is not one that this version writes; rebuild with: streampipe state reset MODULE --rebuild"
        ) from None


class Sealer:
    """Puts payloads under version, shape and checksum, and takes them out again."""

    def __init__(self, name: str, shape: str) -> None:
        self._name = name
        self._shape = zlib.crc32(shape.encode())

    def seal(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Sealed values."""
        crc, pack, shape = zlib.crc32, _HEAD.pack, self._shape
        return [pack(VERSION, shape, crc(p)) + p for p in payloads]

    def unseal(self, values: Sequence[bytes]) -> list[bytes]:
        """The payloads. Raises StateCorrupted for another version or shape, or when a checksum is wrong."""
        return [self._unseal(v) for v in values]

    def _unseal(self, value: bytes) -> bytes:
        if len(value) < _HEAD.size:
            raise StateCorrupted(f"state {self._name!r}: a value is too short")
        version, shape, crc = _HEAD.unpack_from(value)
        payload = value[_HEAD.size :]
        if version != VERSION or shape != self._shape:
            raise StateCorrupted(
                f"state {self._name!r} was written by another shape of this processor; start it from nothing with: "
                f"streampipe state reset MODULE {self._name}, rebuild all state from the input with: streampipe state "
                f"reset MODULE --rebuild, or keep the old one aside by giving the node another name="
            )
        if zlib.crc32(payload) != crc:
            raise StateCorrupted(
                f"state {self._name!r}: a checksum is wrong; rebuild it with: streampipe state reset MODULE --rebuild"
            )
        return payload
