"""Groups of a windowed aggregate as slots: every column of state is an array indexed by slot.

Finding a group's slot is one dictionary look-up for each distinct group of a batch; all else is arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampipe.operators.accumulators import Accumulator
from streampipe.records import IntArray
from streampipe.state.codec import KeyValues

_NEVER = np.iinfo(np.int64).min


class Slots:
    """Slots in use, by (partition, window start, key)."""

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        self.accumulators = accumulators
        self.partition = np.zeros(0, np.int64)
        self.start = np.zeros(0, np.int64)
        self.timestamp = np.zeros(0, np.int64)
        """Largest event time of the slot's records, in ms."""
        self.live = np.zeros(0, np.bool_)
        self.dirty = np.zeros(0, np.bool_)
        """Changed since the last flush."""
        self.stored = np.zeros(0, np.bool_)
        """In the changelog, so that closing needs a tombstone."""
        self.keys: list[KeyValues] = []
        self._index: dict[tuple[int, int, KeyValues], int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._index)

    def find(self, partitions: IntArray, starts: IntArray, keys: Sequence[KeyValues]) -> IntArray:
        """Slots of these distinct groups, new ones empty."""
        groups = list(zip(partitions.tolist(), starts.tolist(), keys, strict=True))
        found = list(map(self._index.get, groups))
        missing = [i for i, slot in enumerate(found) if slot is None]
        if missing:
            fresh = self._allocate(len(missing))
            for i, slot in zip(missing, fresh, strict=True):
                found[i] = self._index[groups[i]] = slot
                self.keys[slot] = keys[i]
            at = np.array(fresh, np.int64)
            self.partition[at], self.start[at] = partitions[missing], starts[missing]
            self.timestamp[at], self.live[at] = _NEVER, True
        return np.array(found, np.int64)

    def _allocate(self, n: int) -> list[int]:
        if len(self._free) < n:
            self._grow(n - len(self._free))
        taken = self._free[-n:]
        del self._free[-n:]
        return taken

    def _grow(self, at_least: int) -> None:
        old = len(self.live)
        size = old + max(at_least, old, 1024)
        for name in ("partition", "start", "timestamp", "live", "dirty", "stored"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(size - old, array.dtype)]))
        for accumulator in self.accumulators:
            accumulator.grow(size)
        self.keys += [()] * (size - old)
        self._free += range(size - 1, old - 1, -1)

    def touch(self, slots: IntArray, timestamps: IntArray) -> None:
        """Records with these event times changed these slots."""
        np.maximum.at(self.timestamp, slots, timestamps)
        self.dirty[slots] = True

    def discard_untouched(self, slots: IntArray) -> None:
        """Forget those of these slots that were made for records of which none was taken."""
        untouched = slots[self.timestamp[slots] == _NEVER]
        if len(untouched):
            self.free(untouched)

    def free(self, slots: IntArray) -> None:
        """Forget these slots."""
        at = slots.tolist()
        for slot, partition, start in zip(at, self.partition[slots].tolist(), self.start[slots].tolist(), strict=True):
            del self._index[partition, start, self.keys[slot]]
            self.keys[slot] = ()
        self.live[slots] = self.dirty[slots] = self.stored[slots] = False
        for accumulator in self.accumulators:
            accumulator.reset(slots)
        self._free += at

    def sorted(self, slots: IntArray) -> IntArray:
        """These slots by window, partition and key: an order that no cut into batches can change."""
        order = sorted(
            zip(self.start[slots].tolist(), self.partition[slots].tolist(), (self.keys[s] for s in slots.tolist()),
                slots.tolist(), strict=True)
        )  # fmt: skip
        return np.array([slot for *_, slot in order], np.int64)
