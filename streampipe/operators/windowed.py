"""Aggregates by key and window, in event time, with state for each partition.

How one batch goes: stream time is the running maximum of event time, record by record and partition by partition;
a record whose window closed before it is late; all others are added to their group's slot; then every window whose
end + grace has passed is closed. Doing it a record at a time would give the same, which is what the tests hold it to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.aggregation import Aggregation
from streampipe.operators.effects import DROPPED, OK, Effects, Reason
from streampipe.operators.frame import Column, Frame, Mask, Origin
from streampipe.operators.grouping import as_physical, check_key_columns, group, key_bytes, null_rows
from streampipe.operators.slots import Slots
from streampipe.operators.stateful import StatefulStep
from streampipe.operators.stream_time import StreamTimes
from streampipe.operators.window_state import STREAM_TIME, WindowStateCodec
from streampipe.records import IntArray, ProduceBatch, RecordBatch
from streampipe.state.codec import window_key
from streampipe.state.port import StateStore, Stores
from streampipe.topology.nodes import WindowedAggregate

_FOREVER = np.iinfo(np.int64).max
_UTC_MS = pa.timestamp("ms", tz="UTC")


@dataclass(slots=True)
class _Partition:
    """What a partition has of its own: a store, and when to look for windows to close."""

    store: StateStore
    deadline: int = _FOREVER
    """Stream time at which the first open window closes."""


class WindowedStep(StatefulStep):
    """Tumbling windows, with the state of all their partitions."""

    timed = True

    def __init__(self, node: WindowedAggregate, effects: Effects, schema: pa.Schema, stores: Stores) -> None:
        super().__init__(node.name, effects)
        assert node.key is not None
        self._node, self._key, self._stores = node, node.key, stores
        self.changelog = node.changelog
        self._size, self._grace = node.window.size_ms, node.window.grace_ms
        check_key_columns(node.name, self._key, schema)
        self._key_types = [schema.field(c).type for c in self._key]
        _check_key_types(node.name, self._key, self._key_types)
        self._aggregation = Aggregation(node.name, effects, node.aggregates, schema)
        accumulators = self._aggregation.accumulators
        self._slots = Slots(list(accumulators.values()))
        key = dict(zip(self._key, self._key_types, strict=True))
        self._codec = WindowStateCodec(node.name, accumulators, key, f"tumbling {self._size}")
        self._partitions: dict[int, _Partition] = {}
        self._times = StreamTimes()
        self._tombstones: list[tuple[int, bytes]] = []
        self.schema = pa.schema([
            *(schema.field(c).with_nullable(False) for c in self._key),
            pa.field("window_start", _UTC_MS, nullable=False),
            pa.field("window_end", _UTC_MS, nullable=False),
            *self._aggregation.fields,
        ])  # fmt: skip

    # --- records ------------------------------------------------------------------------------------------------

    def process(self, frame: Frame) -> None:
        """Add records to their windows; close what their time closes."""
        frame = self._usable(frame)
        if not len(frame):
            return
        starts = frame.timestamps - frame.timestamps % self._size
        late = starts + self._size + self._grace <= self._times.running(frame)
        if late.any():
            self._late(frame, late, starts)
            frame = frame.filter(~late)
        if len(frame):
            self._add(frame)
            frame.origin.mark(frame.rows, OK)
        self._close_passed()

    def _usable(self, frame: Frame) -> Frame:
        for rule, bad in (
            ("key", null_rows([frame.columns[c] for c in self._key])),
            ("timestamp", frame.timestamps < 0),
        ):
            if bad.any():
                self.effects.dead_letters(frame, np.flatnonzero(bad), self.name, _unusable(rule))
                return self._usable(frame.filter(~bad))
        return frame

    def _late(self, frame: Frame, late: Mask, starts: IntArray) -> None:
        rows = np.flatnonzero(late)
        if self._node.late == "drop":
            frame.origin.mark(frame.indexes[rows], DROPPED)
            self.effects.late_drops[self.name] += len(rows)
            return

        def reason(row: int) -> Reason:
            start = int(starts[row])
            window = f"[{_iso(start)}, {_iso(start + self._size)})"
            return Reason("late", "LateRecord", f"window {window} was closed already", {"window": window})

        self.effects.dead_letters(frame, rows, self.name, reason)

    def _add(self, frame: Frame) -> None:
        frame, columns = self._aggregation.evaluated(frame)
        if not len(frame):
            return
        starts = frame.timestamps - frame.timestamps % self._size
        keys = [frame.columns[c] for c in self._key]
        groups = group(keys, starts, frame.partitions)
        values = [as_physical(c.take(groups.first).arrow).to_pylist() for c in keys]
        slots = self._slots.find(frame.partitions[groups.first], starts[groups.first], list(zip(*values, strict=True)))
        self._expect_close(frame.partitions[groups.first], starts[groups.first])
        of_row = slots[groups.of]
        added = self._aggregation.update(frame, columns, of_row)
        self._slots.touch(of_row[added], frame.timestamps[added])
        self._slots.discard_untouched(slots)

    def _expect_close(self, partitions: IntArray, starts: IntArray) -> None:
        for partition in np.unique(partitions).tolist():
            state = self._partitions[partition]
            first = int(starts[partitions == partition].min()) + self._size + self._grace
            state.deadline = min(state.deadline, first)

    # --- results ------------------------------------------------------------------------------------------------

    def _close_passed(self) -> None:
        due = [p for p, time in self._times.items() if time >= self._partitions[p].deadline]
        if not due:
            return
        slots, live = self._slots, np.flatnonzero(self._slots.live)
        deadlines = slots.start[live] + self._size + self._grace
        closing = np.zeros(len(live), np.bool_)
        for partition in due:
            state, mine = self._partitions[partition], slots.partition[live] == partition
            passed = mine & (deadlines <= self._times[partition])
            state.deadline = int(deadlines[mine & ~passed].min(initial=_FOREVER))
            closing |= passed
        if closing.any():
            self._close(live[closing])

    def _close(self, closed: IntArray) -> None:
        slots = self._slots
        closed = slots.sorted(closed)
        self._emit(closed if self._node.emit == "final" else closed[slots.dirty[closed]])
        stored = closed[slots.stored[closed]]
        self._tombstones += [
            (partition, window_key(slots.keys[slot], start))
            for slot, partition, start in zip(
                stored.tolist(), slots.partition[stored].tolist(), slots.start[stored].tolist(), strict=True
            )
        ]
        slots.free(closed)

    def _emit(self, at: IntArray) -> None:
        if not len(at):
            return
        slots = self._slots
        values = zip(*(slots.keys[s] for s in at.tolist()), strict=True)
        arrays = [
            pa.array(list(v), as_physical(pa.array([], t)).type).cast(t)
            for v, t in zip(values, self._key_types, strict=True)
        ]
        start = slots.start[at]
        arrays += [pa.array(start).cast(_UTC_MS), pa.array(start + self._size).cast(_UTC_MS)]
        arrays += self._aggregation.results(at)
        columns = {n: Column(arrow=a) for n, a in zip(self.schema.names, arrays, strict=True)}
        keys = key_bytes({c: columns[c] for c in self._key})
        self.emit(Frame(columns, Origin(self.name, keys, slots.timestamp[at], slots.partition[at])))

    def close_all(self) -> None:
        """Close every window, as if time had passed all of them; later records for them are late."""
        slots = self._slots
        live = np.flatnonzero(slots.live)
        for partition in self._partitions:
            mine = live[slots.partition[live] == partition]
            if len(mine):
                self._times.follow(partition, int(slots.start[mine].max()) + self._size + self._grace)
        self._close_passed()

    def advance(self, now_ms: int, idle: Collection[int]) -> None:
        """Stream time of idle partitions follows the wall clock."""
        if len(self._slots):
            for partition in idle:
                self._times.follow(partition, now_ms)
        self._close_passed()

    # --- state --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Emit pending updates and write dirty state to stores and changelog."""
        slots = self._slots
        dirty = np.flatnonzero(slots.dirty)
        if self._node.emit == "updates" and len(dirty):
            self._emit(dirty[np.argsort(slots.start[dirty], kind="stable")])
        keys, values = self._codec.encode(slots, dirty) if len(dirty) else ([], [])
        partitions = slots.partition[dirty].tolist()
        slots.dirty[dirty], slots.stored[dirty] = False, True
        dead, self._tombstones = self._tombstones, []
        times = self._times.take_moved()
        self._log(
            [*(p for p, _ in dead), *partitions, *(p for p, _ in times)],
            [*(k for _, k in dead), *keys, *(STREAM_TIME for _ in times)],
            [*(None for _ in dead), *values, *(self._codec.encode_time(t) for _, t in times)],
        )

    def _log(self, partitions: list[int], keys: list[bytes], values: list[bytes | None]) -> None:
        if not keys:
            return
        self.effects.changelog.append(ProduceBatch(self.changelog, keys, values, None, partitions))
        of_row = np.array(partitions)
        for partition in set(partitions):
            rows = np.flatnonzero(of_row == partition).tolist()
            self._partitions[partition].store.put_many([keys[i] for i in rows], [values[i] for i in rows])

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty."""
        self._partitions[partition] = _Partition(self._stores.open(self.name, partition))
        self._times.open(partition)

    def restore(self, partition: int, batch: RecordBatch) -> None:
        """Apply changelog records."""
        named = [(k, v) for k, v in zip(batch.keys, batch.values, strict=True) if k is not None]
        self._partitions[partition].store.put_many([k for k, _ in named], [v for _, v in named])

    def restored(self, partition: int) -> None:
        """Open windows come back. Raises StateCorrupted."""
        state = self._partitions[partition]
        entries = [(k, v) for k, v in state.store.range() if k != STREAM_TIME]
        if entries:
            self._codec.decode(self._slots, partition, [k for k, _ in entries], [v for _, v in entries])
            mine = np.flatnonzero(self._slots.live & (self._slots.partition == partition))
            self._expect_close(self._slots.partition[mine], self._slots.start[mine])
        if (time := state.store.get(STREAM_TIME)) is not None:
            self._times.restore(partition, self._codec.decode_time(time))

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        state = self._partitions.pop(partition, None)
        if state is not None:
            state.store.close()
            self._times.close(partition)
            live = np.flatnonzero(self._slots.live)
            self._slots.free(live[self._slots.partition[live] == partition])
            self._tombstones = [(p, k) for p, k in self._tombstones if p != partition]


def _iso(timestamp_ms: int) -> str:
    """ISO 8601 in UTC; NumPy's, since datetime ends with the year 9999."""
    return str(np.datetime_as_string(np.datetime64(timestamp_ms, "ms"), timezone="UTC"))


def _unusable(rule: str) -> Callable[[int], Reason]:
    message = f"a window needs a {rule} that is neither null nor negative"
    return lambda _: Reason("validation", "ValidationError", message, {"rule": rule})


def _check_key_types(node: str, columns: Sequence[str], types: Sequence[pa.DataType]) -> None:
    for column, kind in zip(columns, types, strict=True):
        if not (
            pa.types.is_string(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_temporal(kind)
        ):
            raise TopologyError(
                f"node {node!r}: key column {column!r} is {kind}; a window's key must be a string, an integer, "
                f"a Boolean or a time"
            )
