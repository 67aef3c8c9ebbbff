"""The Confluent wire format: a zero byte, the schema id (four bytes, big endian), then the Avro body."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from streampipe.records import IntArray
from streampipe.schemas.port import Failure

HEADER_BYTES = 5
MAX_SCHEMA_ID = 2**31 - 1
"""Registries give out positive 32-bit ids; the frame could say twice as many."""
# Half the time of the same slices in a comprehension, and this runs for every record.
_HEAD: Callable[[Any], bytes] = itemgetter(slice(HEADER_BYTES))
_BODY: Callable[[Any], bytes] = itemgetter(slice(HEADER_BYTES, None))


def header(schema_id: int) -> bytes:
    """The five bytes in front of every body of this schema id."""
    return struct.pack(">bI", 0, schema_id)


@dataclass(slots=True)
class Group:
    """Bodies written with one schema; `rows` are their indexes in the batch, None when they are the whole batch."""

    schema_id: int
    bodies: list[bytes]
    rows: IntArray | None = None


@dataclass(slots=True)
class Unframed:
    """A batch by writer schema id; every index is in one group, a tombstone or a failure."""

    groups: list[Group]
    tombstones: IntArray | None = None
    failures: list[Failure] = field(default_factory=list)


def unframe(values: Sequence[bytes | None]) -> Unframed:
    """Group a batch by writer schema id; None is a tombstone. No registry is needed to refuse a bad frame."""
    try:
        heads = set(map(_HEAD, values))
    except TypeError:
        return _unframe_mixed(values)
    if len(heads) != 1 or not _is_header(head := next(iter(heads))):
        return _unframe_mixed(values)
    return Unframed([Group(_schema_id(head), list(map(_BODY, values)))])


def _unframe_mixed(values: Sequence[bytes | None]) -> Unframed:
    rows: dict[bytes, list[int]] = {}
    tombstones: list[int] = []
    for row, value in enumerate(values):
        if value is None:
            tombstones.append(row)
        else:
            rows.setdefault(value[:HEADER_BYTES], []).append(row)
    groups: list[Group] = []
    failures: list[Failure] = []
    for head, at in rows.items():
        if _is_header(head):
            bodies = [_BODY(values[i]) for i in at]
            groups.append(Group(_schema_id(head), bodies, np.array(at, np.int64)))
        else:
            failures += [_bad_frame(row, head) for row in at]
    return Unframed(groups, np.array(tombstones, np.int64) if tombstones else None, failures)


def _is_header(head: bytes) -> bool:
    return len(head) == HEADER_BYTES and head[0] == 0 and head[1] < 128


def _schema_id(head: bytes) -> int:
    return int.from_bytes(head[1:], "big")


def _bad_frame(row: int, head: bytes) -> Failure:
    if head and head[0] != 0:
        return Failure(row, "deserialization", "BadMagic", f"magic byte is {head[0]}, Confluent's wire format has 0")
    if len(head) == HEADER_BYTES:
        return Failure(row, "schema", "UnknownSchema", f"schema ids end at {MAX_SCHEMA_ID}", _schema_id(head))
    return Failure(row, "deserialization", "Truncated", f"{len(head)} bytes are too short for the five-byte header")
