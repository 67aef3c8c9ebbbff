"""Windows that were put out of memory: they lie in the store, under their deadlines beside their state keys.

A deadline's key is a zero byte, the time and the state key, so that those of one partition sort by time, before all
state keys, which are JSON. It is of this process alone: the changelog does not have it. One that became untrue, since
its window went on in memory, is found out when its time comes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from streampipe.operators.deadlines import FOREVER
from streampipe.records import IntArray
from streampipe.state.codec import window_keys
from streampipe.state.port import StateStore

_MARK, _END = b"\x00", b"\x01"
_SIGN, _TIME = 1 << 63, struct.Struct(">Q")
_HEAD = len(_MARK) + _TIME.size


class ColdWindows:
    """Those of one partition."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.first = FOREVER
        """When the first of them is due, in ms, or before that."""

    def put(self, names: Sequence[bytes], due: IntArray) -> None:
        """These state keys have something due at these times."""
        marks = window_keys([_MARK] * len(names), due)
        self._store.put_many([mark + name for mark, name in zip(marks, names, strict=True)], [b""] * len(names))
        self.first = min(self.first, int(due.min()))

    def pop(self, until: int) -> list[bytes]:
        """Take out the state keys that have something due at `until` or before."""
        entries = [key for key, _ in self._store.range(_MARK, _MARK + _TIME.pack(until + 1 + _SIGN))]
        self._store.put_many(entries, [None] * len(entries))
        following = next(self._store.range(_MARK, _END), None)
        self.first = FOREVER if following is None else _time(following[0])
        return list(dict.fromkeys(key[_HEAD:] for key in entries))

    def names(self) -> list[bytes]:
        """The state keys of all of them."""
        return [key[_HEAD:] for key, _ in self._store.range(_MARK, _END)]


def _time(mark: bytes) -> int:
    return int(_TIME.unpack_from(mark, len(_MARK))[0]) - _SIGN
