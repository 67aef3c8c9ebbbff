"""Steps that keep records for a while: stream time, buffers in columns, and the changelog they come back from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streampipe.operators.edges import refuse
from streampipe.operators.effects import DROPPED, Effects, Reason
from streampipe.operators.frame import Frame, Mask
from streampipe.operators.grouping import distinct_keys, group, null_rows
from streampipe.operators.joins.cold_entries import ColdEntries
from streampipe.operators.joins.join_buffer import Entries, JoinBuffer
from streampipe.operators.joins.join_state import STREAM_TIME, JoinStateCodec
from streampipe.operators.stateful import AT_ONCE, StoredStep
from streampipe.operators.stream_time import LAST_TIME, NEVER, StreamTimes, iso
from streampipe.policies import LatePolicy
from streampipe.records import IntArray
from streampipe.state.kept import Mark
from streampipe.state.port import Stores


class WaitingStep(StoredStep):
    """Keeps records in `_sides`, each until stream time is `reach_ms` beyond its own.

    Stores in memory hold what comes from the changelog, and what is kept, and are empty in between.
    """

    timed = True

    def __init__(
        self, name: str, effects: Effects, changelog: str, key: Sequence[str], late: LatePolicy,
        sides: Sequence[tuple[pa.Schema, int]], stores: Stores,
    ) -> None:  # fmt: skip
        """`sides`: the columns that are kept of each, and for how long."""
        super().__init__(name, effects)
        self.changelog, self._on, self._late_policy = changelog, key, late
        self._schemas = [schema for schema, _ in sides]
        self._sides = [JoinBuffer(reach_ms) for _, reach_ms in sides]
        self._codec = JoinStateCodec(name, self._schemas)
        self._times = StreamTimes()
        self._numbers: Counter[int] = Counter()
        self._stores, self._open, self._in_memory = stores, {}, stores.room is None
        self._cold = ColdEntries(self._codec, self._sides)
        self._gone: list[tuple[int, bytes]] = []

    # --- records ------------------------------------------------------------------------------------------------

    def hold_time(self) -> None:
        """Stream time stands until `go_on`."""
        self._times.hold()

    def go_on(self) -> None:
        """Stream time goes to where it has been moved."""
        self._times.go_on()

    def _timely(self, frame: Frame) -> Frame:
        """The rows whose time can be used; the others are dead letters."""
        unusable = (frame.timestamps < 0) | (frame.timestamps >= LAST_TIME)
        return refuse(self.effects, frame, unusable, self.name, "timestamp")

    def _refuse_late(self, frame: Frame, late: Mask, before_ms: int, after_ms: int, what: str) -> None:
        """Late rows go by policy; a dead letter names the times, that far around its own, which it missed."""
        rows = np.flatnonzero(late)
        if self._late_policy == "drop":
            frame.origin.mark(frame.indexes[rows], DROPPED)
            self.effects.late_drops[self.name] += len(rows)
            return

        def reason(row: int) -> Reason:
            time = int(frame.timestamps[row])
            window = f"[{iso(time - before_ms)}, {iso(time + after_ms)}]"
            return Reason("late", "LateRecord", what.format(window=window), {"window": window})

        self.effects.dead_letters(frame, rows, self.name, reason)

    def _record_keys(self, frame: Frame) -> list[bytes | None]:
        """Key of each row; None where a part of it is null."""
        columns = {name: frame.columns[name] for name in self._on}
        groups = group([*columns.values()])
        keys = distinct_keys(columns, groups)
        empty = null_rows([column.take(groups.first) for column in columns.values()])
        return [None if empty[g] else keys[g] for g in groups.of.tolist()]

    def _numbered(self, partitions: IntArray) -> IntArray:
        """A number for each record, by which its partition's state knows it."""
        numbers = np.empty(len(partitions), np.int64)
        for partition in np.unique(partitions).tolist():
            rows = partitions == partition
            count = int(rows.sum())
            numbers[rows] = np.arange(self._numbers[partition], self._numbers[partition] + count)
            self._numbers[partition] += count
        return numbers

    def _follow_to_the_end(self) -> None:
        """Stream time passes everything that is kept."""
        for partition in self._open:
            if (last := self._cold.last_over(partition)) != NEVER:
                self._times.follow(partition, last + 1)
            for buffer in self._sides:
                for entries in buffer.of(partition):
                    self._times.follow(partition, int(entries.meta["time"].max()) + buffer.reach_ms + 1)

    # --- state --------------------------------------------------------------------------------------------------

    def _forget(self, side: int, entries: Entries) -> None:
        """Entries that are over leave the state."""
        stored = entries.take(np.flatnonzero(entries.meta["stored"]))
        partitions = stored.meta["partition"].tolist()
        self._gone += zip(partitions, self._codec.keys(side, stored), strict=True)

    def flush(self) -> None:
        """Put what changed into the changelog."""
        self._cold.fall_due(self._times.items())
        times = dict(self._times.items())
        changes: list[tuple[int, bytes, bytes | None]] = []
        for side, buffer in enumerate(self._sides):
            for entries in buffer.pop_over(times):
                self._forget(side, entries)
            for entries in buffer.dirty():
                changes += zip(entries.meta["partition"].tolist(), *self._codec.encode(side, entries), strict=True)
        gone, self._gone = self._gone, []
        changes += [(partition, key, None) for partition, key in gone]
        changes += [(p, STREAM_TIME, self._codec.encode_time(time)) for p, time in self._times.take_moved()]
        if changes:
            partitions, keys, values = (list(column) for column in zip(*changes, strict=True))
            self._log(partitions, keys, values)
        self._cold.put_away(self._stores.room)

    def _store(self, partitions: list[int], keys: list[bytes], values: list[bytes | None]) -> None:
        if not self._in_memory:  # else the sides are all there is
            super()._store(partitions, keys, values)

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty, or as it was kept."""
        super().open(partition)
        self._times.open(partition)
        if not self._in_memory:
            self._cold.open(partition, self._open[partition])

    def restored(self, partition: int) -> None:
        """What waited comes back, as far as there is room. Raises StateCorrupted."""
        store = self._open[partition]
        if (time := store.get(STREAM_TIME)) is not None:
            self._times.restore(partition, self._codec.decode_time(time))
        for keys, values in store.scan(AT_ONCE):
            following = self._cold.restore(partition, dict(zip(keys, values, strict=True)))
            self._numbers[partition] = max(self._numbers[partition], following)
            self._cold.put_away(self._stores.room)
        if self._in_memory:
            store.clear()

    def keep(self, partition: int, mark: Mark) -> None:
        """Keep what waits; what is in memory alone goes to the store first."""
        if self._in_memory:
            store, time = self._open[partition], self._times[partition]
            for side, buffer in enumerate(self._sides):
                for entries in buffer.of(partition):
                    store.put_many(*self._codec.encode(side, entries))
            if time != NEVER:
                store.put(STREAM_TIME, self._codec.encode_time(time))
        super().keep(partition, mark)

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        super().close(partition)
        self._times.close(partition)
        self._cold.close(partition)
        self._numbers.pop(partition, None)
        for buffer in self._sides:
            buffer.forget(partition)
        self._gone = [(p, key) for p, key in self._gone if p != partition]
