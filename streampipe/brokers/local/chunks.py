"""Records of one partition as one block of bytes, so that SQLite sees a row a batch and Python a call a column.

Layout, little endian: flags (int64), timestamps (int64 each), lengths of keys, of values and, if flag 1 is set, of
headers (int32 each, -1 for None), then the bytes of all keys, of all values and of all headers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streampipe.records import Headers, IntArray

MAX_ROWS = 5_000
MAX_BYTES = 4 << 20
HAS_HEADERS = 1

Lengths = npt.NDArray[np.int32]


@dataclass(slots=True)
class Encoded:
    """A block ready to be stored."""

    rows: int
    max_timestamp: int
    data: bytes


@dataclass(slots=True)
class Chunk:
    """A block read back: the record in row i has offset `base` + i."""

    base: int
    timestamps: IntArray
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[bytes | None] | None

    def __len__(self) -> int:
        return len(self.values)


def lengths_of(column: Sequence[bytes | None]) -> Lengths:
    """Length of each entry, -1 for None."""
    return np.array([-1 if entry is None else len(entry) for entry in column], "<i4")


def sizes_of(lengths: Sequence[Lengths]) -> IntArray:
    """Bytes of each record, given the lengths of its columns."""
    sizes: IntArray = np.maximum(np.stack(lengths), 0).sum(axis=0, dtype=np.int64)
    return sizes


def encode(
    timestamps: IntArray,
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[bytes | None] | None,
) -> Iterator[Encoded]:
    """Blocks of at most `MAX_ROWS` records and, but for a single large record, about `MAX_BYTES`."""
    columns = [keys, values] + ([headers] if headers is not None else [])
    lengths = [lengths_of(column) for column in columns]
    for start, stop in _cuts(lengths):
        parts = [struct.pack("<q", HAS_HEADERS if headers is not None else 0)]
        parts.append(timestamps[start:stop].astype("<i8").tobytes())
        parts.extend(length[start:stop].tobytes() for length in lengths)
        for column in columns:
            parts.extend(filter(None, column[start:stop]))
        yield Encoded(stop - start, int(timestamps[start:stop].max()), b"".join(parts))


def _cuts(lengths: Sequence[Lengths]) -> Iterator[tuple[int, int]]:
    sizes = sizes_of(lengths)
    written = np.cumsum(sizes)
    start = 0
    while start < len(written):
        full = written[start] - sizes[start] + MAX_BYTES
        stop = int(np.searchsorted(written, full, side="right"))
        stop = min(max(stop, start + 1), start + MAX_ROWS)
        yield start, stop
        start = stop


def decode(base: int, rows: int, data: bytes) -> Chunk:
    """Read a stored block."""
    (flags,) = struct.unpack_from("<q", data)
    timestamps = timestamps_of(rows, data)
    at = 8 + 8 * rows
    widths = []
    for _ in range(3 if flags & HAS_HEADERS else 2):
        widths.append(np.frombuffer(data, "<i4", rows, at))
        at += 4 * rows
    columns: list[list[bytes | None]] = []
    for width in widths:
        columns.append(_cut(data, at, width))
        at += int(np.maximum(width, 0).sum())
    return Chunk(base, timestamps, columns[0], columns[1], columns[2] if len(columns) > 2 else None)


def timestamps_of(rows: int, data: bytes) -> IntArray:
    """Only the timestamps of a stored block."""
    return np.frombuffer(data, "<i8", rows, 8).astype(np.int64, copy=False)


def _cut(data: bytes, at: int, lengths: Lengths) -> list[bytes | None]:
    absent = lengths < 0
    if absent.all():
        return [None] * len(lengths)
    stops = (np.cumsum(np.maximum(lengths, 0), dtype=np.int64) + at).tolist()
    column: list[bytes | None] = list(map(data.__getitem__, map(slice, [at, *stops], stops)))
    for row in np.flatnonzero(absent).tolist():
        column[row] = None
    return column


def pack_headers(headers: Headers) -> bytes | None:
    """One record's headers as bytes; None when there are none."""
    if not headers:
        return None
    parts = []
    for name, value in headers:
        raw = name.encode()
        parts += [struct.pack("<ii", len(raw), -1 if value is None else len(value)), raw, value or b""]
    return b"".join(parts)


def unpack_headers(data: bytes | None) -> Headers:
    """The headers that `pack_headers` packed."""
    headers: list[tuple[str, bytes | None]] = []
    at = 0
    while data and at < len(data):
        name, value = struct.unpack_from("<ii", data, at)
        at += 8
        text = data[at : at + name].decode()
        at += name
        headers.append((text, None if value < 0 else data[at : at + value]))
        at += max(value, 0)
    return headers
