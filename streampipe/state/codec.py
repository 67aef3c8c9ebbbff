"""Bytes of keyed, windowed state: fixed layout, versioned, checksummed.

Value: version (1 byte), CRC-32 of the state's shape (4), CRC-32 of the payload (4), payload. A store whose shape
changed, or whose bytes did, is refused: old bytes are never read as new ones. Big-endian throughout.
Key: the key columns as a JSON array, then the window start in ms as 8 bytes with the sign bit flipped, so that
windows of one key sort by time. In memory a key goes by its JSON too: bytes are hashed once, compared in one step, and
of no concern to the garbage collector.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import repeat

import numpy as np

from streampipe.errors import StateCorrupted
from streampipe.records import IntArray

VERSION = 1
HEAD = np.dtype([("version", "u1"), ("shape", ">u4"), ("crc", ">u4")])
_HEAD = struct.Struct(">BII")
_START_SIZE = 8
_SIGN = np.uint64(1 << 63)


def window_keys(keys: Sequence[bytes], *numbers: IntArray) -> list[bytes]:
    """State keys of these (key, window start in ms); with more numbers, other names that sort by them."""
    table = np.stack(numbers, axis=1).astype(np.int64, copy=False)
    data, size = (table.view(np.uint64) ^ _SIGN).astype(">u8").tobytes(), _START_SIZE * len(numbers)
    return [key + data[i : i + size] for key, i in zip(keys, range(0, len(data), size), strict=True)]


def parse_window_keys(names: Sequence[bytes]) -> tuple[list[bytes], IntArray]:
    """Keys and window starts of state keys. Raises StateCorrupted."""
    keys = [name[:-_START_SIZE] for name in names]
    if not all(map(bytes.startswith, keys, repeat(b"["))) or not all(map(bytes.endswith, keys, repeat(b"]"))):
        raise foreign_key()
    data = np.frombuffer(b"".join([name[-_START_SIZE:] for name in names]), ">u8")
    return keys, (data.astype(np.uint64) ^ _SIGN).view(np.int64)


def foreign_key() -> StateCorrupted:
    """What a state key is that cannot be parsed."""
    return StateCorrupted(
        "a state key is not one that this version writes; rebuild with: streampipe state reset MODULE --rebuild"
    )


class Sealer:
    """Puts payloads under version, shape and checksum, and takes them out again."""

    def __init__(self, name: str, shape: str) -> None:
        self._name = name
        self._shape = zlib.crc32(shape.encode())

    def head(self, rows: np.ndarray, crcs: Sequence[int]) -> None:
        """Fill in the fields of `HEAD` of these rows, whose payloads have these checksums."""
        rows["version"], rows["shape"], rows["crc"] = VERSION, self._shape, crcs

    def check(self, rows: np.ndarray, crcs: Sequence[int]) -> None:
        """Raise StateCorrupted unless the fields of `HEAD` of these rows say what `head` would write."""
        if (rows["version"] != VERSION).any() or (rows["shape"] != self._shape).any():
            raise self._another_shape()
        if (rows["crc"] != np.array(crcs, np.uint32)).any():
            raise self._flipped()

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
            raise self._another_shape()
        if zlib.crc32(payload) != crc:
            raise self._flipped()
        return payload

    def _another_shape(self) -> StateCorrupted:
        return StateCorrupted(
            f"state {self._name!r} was written by another shape of this processor; start it from nothing with: "
            f"streampipe state reset MODULE {self._name}, rebuild all state from the input with: streampipe state "
            f"reset MODULE --rebuild, or keep the old one aside by giving the node another name="
        )

    def _flipped(self) -> StateCorrupted:
        return StateCorrupted(
            f"state {self._name!r}: a checksum is wrong; rebuild it with: streampipe state reset MODULE --rebuild"
        )
