"""Groups of an aggregate as slots: every column of state is an array indexed by slot."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import polars as pl

from streampipe.operators.accumulators import Accumulator
from streampipe.operators.frame import Mask
from streampipe.operators.slot_index import Hashes, SlotIndex
from streampipe.records import IntArray

NO_RECORD = np.iinfo(np.int64).min
"""Timestamp of a slot without records."""
_SEED = secrets.randbits(64)  # nobody can choose keys whose hashes are the same
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
"""Odd numbers whose bits are well mixed: those of SplitMix64 (Steele, Lea and Flood, 2014)."""


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
        """The round in which it was last asked for; see `coldest`."""
        self.keys = np.zeros(0, np.object_)
        """The key of each slot as JSON in bytes, see `state.codec`; 0 where there is none."""
        self._free: list[int] = []
        self._round = 0

    def __len__(self) -> int:
        return len(self.live) - len(self._free)

    @property
    def columns(self) -> list[str]:
        """Names of the arrays."""
        return [name for name, column in vars(self).items() if isinstance(column, np.ndarray)]

    def take(self, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Fresh slots, empty."""
        at = np.array(self._allocate(len(keys)), np.int64)
        self.partition[at], self.start[at], self.keys[at] = partitions, starts, keys
        self.timestamp[at], self.live[at] = NO_RECORD, True
        self.use(at)
        return at

    def use(self, slots: IntArray) -> None:
        """These slots were asked for."""
        self.used[slots] = self._round

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
        for name in self.columns:
            getattr(self, name)[slots] = 0
        for accumulator in self.accumulators:
            accumulator.reset(slots)
        self._free += slots.tolist()

    def of(self, partition: int) -> IntArray:
        """Every slot of a partition."""
        return np.flatnonzero(self.live & (self.partition == partition))

    def by_time(self, slots: IntArray) -> IntArray:
        """These slots by event time: an order in which updates do not make each other late for windows behind them."""
        return slots[np.argsort(self.timestamp[slots], kind="stable")]

    def sorted(self, slots: IntArray) -> IntArray:
        """These slots by window, partition, event time and key: an order that no cut into batches can change."""
        slots = slots[pl.Series(self.keys[slots].tolist(), dtype=pl.Binary).arg_sort().to_numpy()]
        ordered: IntArray = slots[
            np.lexsort([column[slots] for column in (self.timestamp, self.partition, self.start, self.end)])
        ]
        return ordered


class Slots(Table):
    """Slots in use, one for each (partition, window start, key)."""

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        super().__init__(accumulators)
        self._index = SlotIndex()

    def missing(self, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Which of these groups have no slot."""
        return np.flatnonzero(self._known(_hashes(partitions, starts, keys), partitions, starts, keys) < 0)

    def find(self, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Slots of these distinct groups, new ones empty."""
        hashes = _hashes(partitions, starts, keys)
        at = self._known(hashes, partitions, starts, keys)
        missing = np.flatnonzero(at < 0)
        if len(missing):
            at[missing] = fresh = self.take(partitions[missing], starts[missing], [keys[i] for i in missing.tolist()])
            self._index.add(hashes[missing], fresh)
        self.use(at)
        return at

    def _known(self, hashes: Hashes, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Slots of these groups, -1 where there is none."""

        def same(rows: IntArray, slots: IntArray) -> Mask:
            mine, theirs = [keys[row] for row in rows.tolist()], self.keys[slots].tolist()
            equal = (self.partition[slots] == partitions[rows]) & (self.start[slots] == starts[rows])
            named: Mask = equal if mine == theirs else equal & np.fromiter(map(bytes.__eq__, mine, theirs), np.bool_)
            return named

        return self._index.find(hashes, same)

    def free(self, slots: IntArray) -> None:
        """Forget these slots."""
        self._index.remove(slots)
        super().free(slots)


def _hashes(partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> Hashes:
    hashes = pl.Series(keys, dtype=pl.Binary).hash(_SEED).to_numpy() + partitions.astype(np.uint64) * _MIX[0]
    hashes = (hashes ^ (hashes >> np.uint64(30)) ^ starts.astype(np.uint64)) * _MIX[1]
    mixed: Hashes = (hashes ^ (hashes >> np.uint64(27))) * _MIX[2]
    return mixed ^ (mixed >> np.uint64(31))
