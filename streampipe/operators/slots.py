"""Groups of an aggregate as slots: every column of state is an array indexed by slot.

Finding a group's slot is one dictionary look-up for each distinct group of a batch; all else is arrays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import polars as pl

from streampipe.operators.accumulators import Accumulator
from streampipe.records import IntArray
from streampipe.state.codec import window_keys

NO_RECORD = np.iinfo(np.int64).min
"""Timestamp of a slot without records."""


class Table:
    """State of groups in columns, by slot. What a slot stands for is for others to know; see `Slots`."""

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        self.accumulators = accumulators
        self.partition = np.zeros(0, np.int64)
        self.start = np.zeros(0, np.int64)
        """Where the slot's window begins, in ms."""
        self.end = np.zeros(0, np.int64)
        """Where it ends, in ms."""
        self.timestamp = np.zeros(0, np.int64)
        """Largest event time of the slot's records, in ms."""
        self.live = np.zeros(0, np.bool_)
        self.dirty = np.zeros(0, np.bool_)
        """Changed since the last flush."""
        self.pending = np.zeros(0, np.bool_)
        """To be emitted at the next flush."""
        self.emitted = np.zeros(0, np.bool_)
        """Its window was closed, and its final result emitted."""
        self.stored = np.zeros(0, np.bool_)
        """In the changelog, so that the end of it needs a tombstone."""
        self.used = np.zeros(0, np.int64)
        """The round in which it was last asked for; see `Slots.coldest`."""
        self.keys: list[bytes] = []
        """The key of each slot as JSON; see `state.codec`."""
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.live) - len(self._free)

    @property
    def columns(self) -> list[str]:
        """Names of the arrays."""
        return [name for name, column in vars(self).items() if isinstance(column, np.ndarray)]

    def take(self, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Fresh slots, empty."""
        fresh = self._allocate(len(keys))
        for slot, key in zip(fresh, keys, strict=True):
            self.keys[slot] = key
        at = np.array(fresh, np.int64)
        self.partition[at], self.start[at] = partitions, starts
        self.timestamp[at], self.live[at] = NO_RECORD, True
        return at

    def _allocate(self, n: int) -> list[int]:
        if len(self._free) < n:
            self._grow(n - len(self._free))
        taken = self._free[len(self._free) - n :]
        del self._free[len(self._free) - n :]
        return taken

    def _grow(self, at_least: int) -> None:
        old = len(self.live)
        size = old + max(at_least, old, 1024)
        for name in self.columns:
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(size - old, array.dtype)]))
        for accumulator in self.accumulators:
            accumulator.grow(size)
        self.keys += [b""] * (size - old)
        self._free += range(size - 1, old - 1, -1)

    def touch(self, slots: IntArray, timestamps: IntArray) -> None:
        """Records with these event times changed these slots."""
        np.maximum.at(self.timestamp, slots, timestamps)
        self.dirty[slots] = True

    def untouched(self, slots: IntArray) -> IntArray:
        """Those of these slots that hold no record yet."""
        fresh: IntArray = slots[self.timestamp[slots] == NO_RECORD]
        return fresh

    def discard_untouched(self, slots: IntArray) -> None:
        """Forget those of these slots that were made for records of which none was taken."""
        untouched = self.untouched(slots)
        if len(untouched):
            self.free(untouched)

    def free(self, slots: IntArray) -> None:
        """Forget these slots."""
        self._drop_keys(slots)
        for name in self.columns:
            getattr(self, name)[slots] = 0
        for accumulator in self.accumulators:
            accumulator.reset(slots)
        self._free += slots.tolist()

    def _drop_keys(self, slots: IntArray) -> None:
        for slot in slots.tolist():
            self.keys[slot] = b""

    def of(self, partition: int) -> IntArray:
        """Every slot of a partition."""
        return np.flatnonzero(self.live & (self.partition == partition))

    def sorted(self, slots: IntArray) -> IntArray:
        """These slots by window, partition and key: an order that no cut into batches can change."""
        keys = self.keys
        slots = slots[pl.Series([keys[slot] for slot in slots.tolist()], dtype=pl.Binary).arg_sort().to_numpy()]
        ordered: IntArray = slots[np.lexsort((self.partition[slots], self.start[slots], self.end[slots]))]
        return ordered


class Slots(Table):
    """Slots in use, one for each (partition, window start, key)."""

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        super().__init__(accumulators)
        self._index: dict[bytes, int] = {}
        self._round = 0

    def missing(self, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Which of these groups have no slot."""
        found = list(map(self._index.get, _groups(partitions, starts, keys)))
        return np.array([i for i, slot in enumerate(found) if slot is None], np.int64)

    def coldest(self, keep: int) -> IntArray:
        """Slots to put out of memory so that `keep` and no more are left, with some room: those not used for longest.

        Begins another round.
        """
        self._round += 1
        if len(self) <= keep:
            return np.zeros(0, np.int64)
        idle = np.flatnonzero(self.live & ~self.dirty & ~self.pending)
        surplus = min(len(self) - keep + keep // 4, len(idle))
        return idle[np.argpartition(self.used[idle], surplus - 1)[:surplus]] if surplus else idle[:0]

    def find(self, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Slots of these distinct groups, new ones empty."""
        groups = _groups(partitions, starts, keys)
        found = list(map(self._index.get, groups))
        missing = [i for i, slot in enumerate(found) if slot is None]
        if missing:
            fresh = self.take(partitions[missing], starts[missing], [keys[i] for i in missing])
            for i, slot in zip(missing, fresh.tolist(), strict=True):
                found[i] = self._index[groups[i]] = slot
        at = np.array(found, np.int64)
        self.used[at] = self._round
        return at

    def _drop_keys(self, slots: IntArray) -> None:
        keys = [self.keys[slot] for slot in slots.tolist()]
        groups = _groups(self.partition[slots], self.start[slots], keys)
        deque(map(self._index.__delitem__, groups), maxlen=0)
        super()._drop_keys(slots)


def _groups(partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> list[bytes]:
    return window_keys(keys, starts, partitions)
