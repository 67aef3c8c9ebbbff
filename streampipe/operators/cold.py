"""What was put out of memory: in the store there is beside it when something of it is due, and what each key has.

A deadline is under the byte 254, its time and a name, so that those of one partition sort by time; what a key has is
under the byte 255 and that key. No state key begins like that. Both are of this process alone: the changelog does not
have them. A deadline that became untrue, since what it is of went on in memory, is found out when its time comes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from streampipe.operators.deadlines import FOREVER
from streampipe.operators.stream_time import NEVER
from streampipe.records import IntArray
from streampipe.state.codec import window_keys
from streampipe.state.port import StateStore

_MARK, _END = b"\xfe", b"\xff"
_SIGN, _TIME = 1 << 63, struct.Struct(">Q")
_HEAD = len(_MARK) + _TIME.size
_KEYS = b"\xff"
_LENGTH = struct.Struct(">I")


class ColdDeadlines:
    """When what is out of memory is due, in one partition."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.first = FOREVER
        """When the first of them is due, in ms, or before that."""
        self.last_close = NEVER
        """When the last of it closes, in ms: what is not among them any more has closed, or will in memory."""

    def put(self, names: Sequence[bytes], due: IntArray, closes: IntArray) -> None:
        """These names have something due at these times, and close for good at those, or did."""
        marks = window_keys([_MARK] * len(names), due)
        self._store.put_many([mark + name for mark, name in zip(marks, names, strict=True)], [b""] * len(names))
        self.last_close = max(self.last_close, int(closes.max()))
        self.first = min(self.first, int(due.min()))

    def pop(self, until: int) -> list[bytes]:
        """Take out the names that have something due at `until` or before."""
        entries = [key for key, _ in self._store.range(_MARK, _MARK + _TIME.pack(until + 1 + _SIGN))]
        self._store.put_many(entries, [None] * len(entries))
        following = next(self._store.range(_MARK, _END), None)
        self.first = FOREVER if following is None else _time(following[0])
        return list(dict.fromkeys(key[_HEAD:] for key in entries))


class ColdKeys:
    """Keys of one partition of which all that they have is out of memory."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def clear(self) -> None:
        """There are none."""
        stale = [key for key, _ in self._store.range(_KEYS)]
        self._store.put_many(stale, [None] * len(stale))

    def put(self, names: Mapping[bytes, Sequence[bytes]]) -> None:
        """These keys, with the state keys of what they have."""
        held = [b"".join([_LENGTH.pack(len(name)) + name for name in some]) for some in names.values()]
        self._store.put_many([_KEYS + key for key in names], held)

    def take(self, keys: Sequence[bytes]) -> list[bytes]:
        """The state keys of what those of these keys have that are out of memory; they are coming back."""
        entries = [_KEYS + key for key in keys]
        found = [(e, held) for e, held in zip(entries, self._store.get_many(entries), strict=True) if held is not None]
        self._store.put_many([entry for entry, _ in found], [None] * len(found))
        return [name for _, held in found for name in _names(held)]


def _names(held: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(held):
        (size,) = _LENGTH.unpack_from(held, at)
        at += _LENGTH.size + size
        yield held[at - size : at]


def _time(mark: bytes) -> int:
    return int(_TIME.unpack_from(mark, len(_MARK))[0]) - _SIGN
