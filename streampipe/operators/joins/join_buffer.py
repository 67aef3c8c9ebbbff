"""The records of one side of a stream-stream join that may still find a partner, in columns.

They lie in runs, each sorted by key and time, so that a batch finds all its partners by binary search. New records are
a run of their own; runs are merged as they become alike in size, as in an LSM tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.operators.frame import Mask
from streampipe.operators.stream_time import NEVER
from streampipe.records import IntArray

KEY, BODY = "\0key", "\0body"
"""Columns of an entry besides those of its record: the key, and the record as state bytes."""
Hashes = npt.NDArray[np.uint64]
_META = np.dtype([
    ("partition", "i8"), ("hash", "u8"), ("time", "i8"), ("seq", "i8"), ("matched", "?"), ("stored", "?"),
    ("dirty", "?"), ("over", "?"), ("used", "i8"),
])  # fmt: skip
_NOTHING = np.zeros(0, _META)
ALWAYS = np.iinfo(np.int64).max


@dataclass(slots=True)
class Entries:
    """Records by row: what is known of each (`meta`, see `_META`), and its columns."""

    meta: np.ndarray
    rows: pa.RecordBatch

    @classmethod
    def of(cls, rows: pa.RecordBatch, partitions: IntArray, times: IntArray, numbers: IntArray) -> Entries:
        """New records; `numbers` tells them apart for ever, within their partition."""
        meta = np.zeros(len(times), _META)
        meta["partition"], meta["time"], meta["seq"] = partitions, times, numbers
        meta["hash"] = hashes(rows.column(KEY), partitions)
        return cls(meta, rows)

    def __len__(self) -> int:
        return len(self.meta)

    def take(self, at: IntArray) -> Entries:
        """The rows at these positions."""
        return Entries(self.meta[at], self.rows.take(pa.array(at)))


def firsts(keys: pa.Array, partitions: IntArray) -> IntArray:
    """The first row of each key and partition."""
    codes = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = codes * (int(partitions.max(initial=0)) + 1) + partitions
    first: IntArray = np.unique(pairs, return_index=True)[1]
    return first


def hashes(keys: pa.Array, partitions: IntArray) -> Hashes:
    """A number for each key and partition, equal where they are; different ones may share one."""
    codes: Hashes = pl.Series(pl.from_arrow(keys)).hash().to_numpy()
    return codes ^ (partitions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


@dataclass(slots=True)
class Probe:
    """What rows look for: partners of the same key with a time from `low` to `high`, while stream time is `seen`."""

    keys: pa.Array
    partitions: IntArray
    low: IntArray
    high: IntArray
    seen: IntArray


class _Run:
    """Entries sorted by hash and time, and where to look for them."""

    def __init__(self, entries: Entries) -> None:
        meta = entries.meta
        order = np.lexsort((meta["seq"], meta["time"], meta["hash"]))
        self.entries = entries.take(order)
        meta = self.entries.meta
        self._hashes, codes = np.unique(meta["hash"], return_inverse=True)
        self._times, ranks = np.unique(meta["time"], return_inverse=True)
        self._places = codes * len(self._times) + ranks  # ascending, as the entries are

    def __len__(self) -> int:
        return len(self.entries)

    def candidates(self, probe: Probe) -> tuple[IntArray, IntArray]:
        """Positions here, and rows of the probe that they fit by hash and time."""
        wanted = hashes(probe.keys, probe.partitions)
        code = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        start = code * len(self._times)
        low, high = np.searchsorted(self._times, probe.low), np.searchsorted(self._times, probe.high, "right")
        first = np.searchsorted(self._places, start + low)
        count = np.searchsorted(self._places, start + high) - first
        count = np.where(self._hashes[code] == wanted, np.maximum(count, 0), 0)
        rows = np.repeat(np.arange(len(count)), count)
        at = np.arange(len(rows)) + np.repeat(first - (np.cumsum(count) - count), count)
        return at, rows


class JoinBuffer:
    """One side's entries. `reach_ms`: an entry is over once stream time is more than this after its own time."""

    def __init__(self, reach_ms: int) -> None:
        self.reach_ms = reach_ms
        self.round = 0
        """Entries that come or are used count as used in this one."""
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        """Entries, with those that are over but not swept away yet."""
        return sum(map(len, self._runs))

    def add(self, entries: Entries) -> None:
        """Put entries in."""
        if not len(entries):
            return
        entries.meta["used"] = self.round
        self._runs.append(_Run(entries))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._replace(self._runs[-2:], [self._runs[-2], self._runs[-1]])

    def _replace(self, old: Sequence[_Run], merged: Sequence[_Run]) -> None:
        parts = [run.entries.take(np.flatnonzero(~run.entries.meta["over"])) for run in merged]
        self._runs = [run for run in self._runs if run not in old]
        meta = np.concatenate([part.meta for part in parts])
        if len(meta):
            self._runs.append(_Run(Entries(meta, _concatenated([part.rows for part in parts]))))

    def partners(self, probe: Probe) -> Iterator[tuple[Entries, IntArray, IntArray]]:
        """Entries, positions among them, and the row of the probe that each of those is a partner of."""
        for run in self._runs:
            at, rows = run.candidates(probe)
            meta = run.entries.meta
            fits = ~meta["over"][at] & (meta["time"][at] + self.reach_ms >= probe.seen[rows])
            fits &= meta["partition"][at] == probe.partitions[rows]
            at, rows = at[fits], rows[fits]
            same = pc.equal(run.entries.rows.column(KEY).take(pa.array(at)), probe.keys.take(pa.array(rows)))
            fits = same.to_numpy(zero_copy_only=False).astype(np.bool_)
            if fits.any():
                yield run.entries, at[fits], rows[fits]

    def pop_over(self, stream_times: Mapping[int, int]) -> list[Entries]:
        """Entries that are over now, which they had not been before."""
        return self._pop(lambda meta: meta["time"] + self.reach_ms < _of(stream_times, meta["partition"]))

    def _pop(self, which: Callable[[np.ndarray], Mask]) -> list[Entries]:
        popped = []
        for run in list(self._runs):
            meta = run.entries.meta
            at = np.flatnonzero(~meta["over"] & which(meta))
            if len(at):
                popped.append(run.entries.take(at))
                meta["over"][at] = True
                if 2 * int(meta["over"].sum()) > len(run):
                    self._replace([run], [run])
        return popped

    def use(self, keys: pa.Array, partitions: IntArray) -> Mask:
        """Which of these keys have entries here, which are used by that."""
        there = np.zeros(len(keys), np.bool_)
        always, never = np.full(len(keys), ALWAYS), np.full(len(keys), NEVER)
        for entries, at, rows in self.partners(Probe(keys, partitions, never, always, never)):
            entries.meta["used"][at], there[rows] = self.round, True
        return there

    def held(self) -> np.ndarray:
        """What is known of each entry that is not over."""
        return np.concatenate([_NOTHING, *(run.entries.meta[~run.entries.meta["over"]] for run in self._runs)])

    def take_out(self, some: Hashes) -> list[Entries]:
        """Let go of the entries with these hashes, in ascending order."""

        def chosen(meta: np.ndarray) -> Mask:
            at = np.minimum(np.searchsorted(some, meta["hash"]), len(some) - 1)
            fits: Mask = some[at] == meta["hash"]
            return fits

        return self._pop(chosen)

    def dirty(self) -> Iterator[Entries]:
        """Entries that are not in the state yet as they are; they count as written from now on."""
        for run in self._runs:
            meta = run.entries.meta
            at = np.flatnonzero(meta["dirty"] & ~meta["over"])
            if len(at):
                yield run.entries.take(at)
                meta["dirty"][at], meta["stored"][at] = False, True

    def of(self, partition: int) -> Iterator[Entries]:
        """What a partition holds, the oldest first within each lot."""
        for run in self._runs:
            meta = run.entries.meta
            if len(at := np.flatnonzero((meta["partition"] == partition) & ~meta["over"])):
                yield run.entries.take(at[np.argsort(meta["seq"][at])])

    def forget(self, partition: int) -> None:
        """Let a partition's entries go."""
        for run in list(self._runs):
            meta = run.entries.meta
            meta["over"][meta["partition"] == partition] = True
            self._replace([run], [run])


def _of(stream_times: Mapping[int, int], partitions: IntArray) -> IntArray:
    """The stream time of each row's partition."""
    by_number = np.full(max(stream_times, default=0) + 1, NEVER, np.int64)
    for partition, time in stream_times.items():
        by_number[partition] = time
    return by_number[partitions]


def _concatenated(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    columns = [pa.concat_arrays([b.column(i) for b in batches]) for i in range(batches[0].num_columns)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)
