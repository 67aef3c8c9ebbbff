"""Sliding windows: what is in them is a stretch of a key's records, so that is what is kept.

A slot holds what one record gives, and the content of a window is merged from the slots of its records when its result
is due: in the order in which they came. Nothing is ever computed for a window that nobody is told about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streampipe.operators.accumulators.make import check_mergeable
from streampipe.operators.effects import Effects
from streampipe.operators.frame import Column, Frame, Mask
from streampipe.operators.grouping import Groups, group
from streampipe.operators.keyed_aggregate import Home
from streampipe.operators.stream_time import NEVER
from streampipe.operators.windows.gathered import GatheredStep
from streampipe.operators.windows.sliding_records import RecordCodec, Records, RecordTable, key_and_number
from streampipe.operators.windows.sliding_replay import replayed
from streampipe.operators.windows.sliding_windows import Held, Windows, windows_of
from streampipe.records import IntArray
from streampipe.state.codec import parse_window_keys
from streampipe.state.port import Stores
from streampipe.topology.nodes import WindowedAggregate
from streampipe.windows import Sliding

_AT_ONCE = 500_000
"""Records in windows that are merged at a time: bounds memory, changes no result."""


class SlidingStep(GatheredStep):
    """A slot for each record that is in windows which are open or still corrected, or may be made of it."""

    _codec_type = RecordCodec
    _table_type = RecordTable
    _slots: RecordTable
    _codec: RecordCodec
    _index: dict[Home, Records]

    def __init__(self, node: WindowedAggregate, effects: Effects, schema: pa.Schema, stores: Stores) -> None:
        assert isinstance(node.window, Sliding)
        check_mergeable(node.name, node.aggregates)
        super().__init__(node, effects, schema, stores)
        self._difference = node.window.difference_ms
        self._takes_for = self._grace + self._retention
        """How far behind stream time a window may end and still take records, in ms."""
        self._closed_before: dict[int, int] = {}
        """Windows that ended before this are closed, by partition."""
        self._numbers: dict[int, int] = {}
        self._over: list[IntArray] = []

    # --- records ------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame, seen: IntArray) -> None:
        late = frame.timestamps + (self._difference + 1 + self._takes_for) <= seen
        seen, frame = seen[~late], self._missed(frame, late)
        frame, seen, columns = self._evaluated(frame, seen)
        if not len(frame):
            return
        groups = group(self._key_columns(frame), frame.partitions)
        keys = self._group_keys(frame, groups)
        self._gather(zip(frame.partitions[groups.first].tolist(), keys, strict=True))
        at, added = self._add(frame, seen, columns, [keys[g] for g in groups.of.tolist()])
        uncounted = self._uncounted(at, groups, added & (frame.timestamps < seen - self._takes_for))
        self._missed(frame, uncounted)
        self._forget(at[uncounted])
        at = at[added & ~uncounted]
        self._number(at)  # anew, without those that left nothing behind: a restart would not know of them
        for partition, number in zip(*np.unique(self._slots.partition[at], return_counts=True), strict=True):
            self._numbers[int(partition)] += int(number)
        self._expect(at)
        self._count_in(frame.filter(added & ~uncounted))

    def _missed(self, frame: Frame, late: Mask) -> Frame:
        times = frame.timestamps
        return self._late(frame, late, lambda row: (int(times[row]) - self._difference, int(times[row]), "]"))

    def _add(
        self, frame: Frame, seen: IntArray, columns: dict[str, Column], keys: list[bytes]
    ) -> tuple[IntArray, Mask]:
        """A slot for each row, and which of them are in use: all but those of dead letters."""
        slots, times = self._slots, frame.timestamps
        at = slots.take(frame.partitions, times, keys)
        added = self._aggregation.update(frame, columns, at)
        slots.touch(at[added], times[added])
        slots.discard_untouched(at)
        used = at[added]
        slots.seen[used], slots.pending[used] = seen[added], True
        self._number(used)
        self._enter(used)
        return at, added

    def _number(self, at: IntArray) -> None:
        """These records, in the order in which they came, come after all that are numbered for good."""
        slots = self._slots
        for partition in np.unique(slots.partition[at]).tolist():
            mine = at[slots.partition[at] == partition]
            slots.number[mine] = self._numbers[partition] + np.arange(len(mine))

    def _enter(self, at: IntArray) -> None:
        """Put these records into the index, in the order in which they came."""
        late = self._came_late(at).tolist()
        for home, time, slot, was in zip(
            self._homes(at), self._slots.start[at].tolist(), at.tolist(), late, strict=True
        ):
            self._index.setdefault(home, Records()).add(time, slot, late=was)

    def _came_late(self, at: IntArray) -> Mask:
        """Which of these records came when their own windows were closed already."""
        late: Mask = self._slots.start[at] < self._slots.seen[at] - self._takes_for
        return late

    def _uncounted(self, at: IntArray, groups: Groups, doubtful: Mask) -> Mask:
        """Which of the rows that came too late for their own window are in no other one either."""
        uncounted = np.zeros(len(at), np.bool_)
        for key in np.unique(groups.of[doubtful]).tolist():
            rows = np.flatnonzero((groups.of == key) & doubtful)
            held = self._in_order(self._index[self._homes(at[rows[:1]])[0]].slots)
            closes = self._slots.seen[held] - self._takes_for
            counted = replayed(self._slots.start[held].tolist(), closes.tolist(), self._difference).counted
            of = {slot: record for record, slot in enumerate(held.tolist())}
            uncounted[rows] = [of[slot] not in counted for slot in at[rows].tolist()]
        return uncounted

    def _in_order(self, held: list[int]) -> IntArray:
        """These slots in the order in which their records came."""
        at = np.array(held, np.int64)
        return at[np.argsort(self._slots.number[at])]

    def _expect(self, at: IntArray) -> None:
        """Note when the windows that these records make are closed, and when no window can be made of them."""
        for partition in np.unique(self._slots.partition[at]).tolist():
            mine = self._slots.partition[at] == partition
            if self._final:
                self._closing[partition].add(self._closes(at[mine]) - (self._difference + 1), at[mine])
                self._closing[partition].add(self._closes(at[mine]), at[mine])
            self._releasing[partition].add(self._ends(at[mine]), at[mine])

    # --- time ---------------------------------------------------------------------------------------------------

    def _pass_time(self) -> None:
        super()._pass_time()
        for partition, time in self._times.items():
            self._closed_before[partition] = max(self._closed_before[partition], time - self._grace)

    def _close(self, at: IntArray) -> None:
        homes, records, windows = self._windows(at)
        ends = windows.start + self._difference
        partitions = [partition for partition, _ in homes]
        before = np.array([self._closed_before[p] for p in partitions], np.int64)[windows.key]
        now = np.array([self._times[p] - self._grace for p in partitions], np.int64)[windows.key]
        self._tell(homes, records, windows.take(np.flatnonzero((before <= ends) & (ends < now))))

    def _release(self, at: IntArray) -> None:
        self._over.append(at)  # what is told at the flush may still be made of them

    def _forget(self, at: IntArray) -> None:
        gone: dict[Home, set[int]] = {}
        late: Counter[Home] = Counter()
        for home, slot, was in zip(self._homes(at), at.tolist(), self._came_late(at).tolist(), strict=True):
            gone.setdefault(home, set()).add(slot)
            late[home] += was
        for home, slots in gone.items():
            self._index[home].remove(slots, late[home])
            if not self._index[home].slots:
                del self._index[home]
        super()._forget(at)

    def _closes(self, at: IntArray) -> IntArray:
        """Stream time at which all windows that these records make are closed."""
        return self._slots.start[at] + (self._difference + self._grace + 2)

    def _ends(self, at: IntArray) -> IntArray:
        """Stream time at which no window can be made of them any more."""
        # late records are counted in windows made of other ones, which reaches some differences back
        return self._slots.start[at] + (4 * self._difference + self._takes_for + 2)

    def _falls_due(self, partition: int, names: Sequence[bytes]) -> None:
        keys = dict.fromkeys(key for key, _ in map(key_and_number, parse_window_keys(names)[0]))
        self._gather([(partition, key) for key in keys])

    def _due(self, at: IntArray, partition: int) -> tuple[IntArray, IntArray]:
        ends, closes, now = self._ends(at), self._closes(at), self._times[partition]
        if not self._final:
            return ends, closes
        own = closes - (self._difference + 1)
        return np.where(own > now, own, np.where(closes > now, closes, ends)), closes

    def _held(self, home: Home) -> list[int]:
        return self._index[home].slots

    # --- results ------------------------------------------------------------------------------------------------

    def _windows(self, at: IntArray) -> tuple[list[Home], IntArray, Windows]:
        """Keys, slots of records, and windows: all those that records at these times are in or make, and others.

        Those others may lack records; which are wanted is for the caller to say.
        """
        spans: dict[Home, tuple[int, int]] = {}
        for home, time in zip(self._homes(at), self._slots.start[at].tolist(), strict=True):
            first, last = spans.get(home, (time, time))
            spans[home] = min(first, time), max(last, time)
        near, held = self._difference + 1, []
        for home, (first, last) in spans.items():
            records = self._index[home]
            held.append(self._in_order(records.slots if records.late else records.between(first - near, last + near)))
        of = np.concatenate(held)
        key = np.repeat(np.arange(len(held)), [len(records) for records in held])
        slots = self._slots
        rows = Held(key, slots.start[of], slots.seen[of], slots.pending[of])
        return list(spans), of, windows_of(rows, self._difference, self._takes_for)

    def _tell_pending(self, at: IntArray) -> None:
        """Results of the windows that these pending records changed or made, closed ones only if results are final."""
        if not len(at):
            return
        homes, records, windows = self._windows(at)
        told = windows.touched != NEVER
        if self._final:
            told &= windows.start + self._difference < windows.touched - self._grace
        windows = windows.take(np.flatnonzero(told))
        if len(windows.key):
            self._tell(homes, records, windows, windows.newest(self._slots.start[records]))
        self._slots.pending[records] = False

    def _tell(self, homes: list[Home], records: IntArray, windows: Windows, times: IntArray | None = None) -> None:
        """Results of these windows in the order of `times`, which are their beginnings if nothing else is said."""
        order_by = windows.start if times is None else times
        order = sorted(range(len(order_by)), key=lambda w: (int(order_by[w]), homes[windows.key[w]]))
        windows = windows.take(np.array(order, np.int64))
        parts = np.cumsum(windows.high - windows.low) // _AT_ONCE
        for part in np.unique(parts).tolist():
            self._tell_some(homes, records, windows.take(np.flatnonzero(parts == part)))

    def _tell_some(self, homes: list[Home], records: IntArray, windows: Windows) -> None:
        slots, of = self._slots, [homes[key] for key in windows.key.tolist()]
        made = slots.take(np.array([p for p, _ in of], np.int64), windows.start, [k for _, k in of])
        slots.end[made] = windows.start + self._difference
        which, members = windows.pairs()
        self._aggregation.merge(made[which], records[members])
        np.maximum.at(slots.timestamp, made[which], slots.start[records[members]])
        self._emit(made)
        slots.free(made)

    def show(self, partition: int) -> None:
        """Emit every window that is open."""
        at = self._slots.of(partition)
        if len(at):
            homes, records, windows = self._windows(at)
            open_ = windows.start + self._difference >= self._times[partition] - self._takes_for
            self._tell(homes, records, windows.take(np.flatnonzero(open_)))

    # --- state --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Emit pending updates, and write new records to stores and changelog."""
        self._tell_pending(np.flatnonzero(self._slots.pending))
        over, self._over = self._over, []
        if over:
            self._forget(np.concatenate(over))
        self._write(self._moved())
        self._put_away()

    def _encode_time(self, partition: int, stream_time: int) -> bytes:
        return self._codec.encode_clock(stream_time, self._closed_before[partition], self._numbers[partition])

    def _decode_time(self, partition: int, value: bytes) -> int:
        stream_time, self._closed_before[partition], self._numbers[partition] = self._codec.decode_clock(value)
        return stream_time

    def _came_back(self, partition: int, at: IntArray) -> None:
        super()._came_back(partition, at)
        at, slots = self._in_order(at.tolist()), self._slots
        self._enter(at)
        # the number is written when time moves, and records come without that
        self._numbers[partition] = max(self._numbers[partition], int(slots.number[at].max(initial=-1)) + 1)
        self._expect(at)

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty."""
        super().open(partition)
        self._closed_before[partition], self._numbers[partition] = NEVER, 0

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        self._over = [at[self._slots.partition[at] != partition] for at in self._over]
        super().close(partition)
        self._closed_before.pop(partition, None)
