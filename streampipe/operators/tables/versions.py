"""Versions of a table's row: what it was at any time within the history, as one value of a store.

The rules are Kafka Streams' (KIP-889, RocksDBVersionedStore): the newest version answers for every time from its own
on; for times before that, those older than the history behind stream time are answered by nothing, the others by the
version that was valid then. A record older than the history is too late to become a version.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

_COUNT, _VERSION = struct.Struct(">I"), struct.Struct(">qi")
_DELETED = -1

Versions = list[tuple[int, bytes | None]]
"""Times in ms from which on a value is valid, ascending; None says that the row was deleted."""


def pack(versions: Versions) -> bytes:
    """As one value."""
    heads = [_VERSION.pack(time, _DELETED if value is None else len(value)) for time, value in versions]
    return b"".join([_COUNT.pack(len(versions)), *heads, *(value for _, value in versions if value is not None)])


def unpack(packed: bytes) -> Versions:
    """And back."""
    (count,) = _COUNT.unpack_from(packed)
    end = _COUNT.size + count * _VERSION.size
    versions: Versions = []
    for time, length in _VERSION.iter_unpack(packed[_COUNT.size : end]):
        if length == _DELETED:
            versions.append((time, None))
        else:
            versions.append((time, packed[end : end + length]))
            end += length
    return versions


def put(versions: Versions, time: int, value: bytes | None, oldest_ms: int) -> None:
    """A version from this time on; forget those that were over before `oldest_ms`."""
    at = bisect_right(versions, time, key=_time)
    if at and versions[at - 1][0] == time:
        versions[at - 1] = time, value
    else:
        versions.insert(at, (time, value))
    over = bisect_right(versions, oldest_ms, key=_time) - 1  # the one that is valid at `oldest_ms` is needed still
    del versions[: max(over, 0)]
    if len(versions) == 1 and versions[0][1] is None and versions[0][0] <= oldest_ms:
        versions.clear()  # a delete that nothing was before says nothing


def valid_at(versions: Versions, time: int, oldest_ms: int) -> bytes | None:
    """The value at a time; None where there is none, or nobody knows any more."""
    if not versions:
        return None
    newest, value = versions[-1]
    if newest <= time:
        return value
    at = bisect_right(versions, time, key=_time)
    return versions[at - 1][1] if at and time >= oldest_ms else None


def _time(version: tuple[int, bytes | None]) -> int:
    return version[0]
