"""Tumbling and hopping windows: places in time that are there before any record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streampipe.operators.effects import Effects
from streampipe.operators.frame import Column, Frame
from streampipe.operators.grouping import group
from streampipe.operators.slots import Slots
from streampipe.operators.windows.alignment import alignment
from streampipe.operators.windows.windowed import Window, WindowedStep
from streampipe.records import IntArray
from streampipe.state.codec import parse_window_keys
from streampipe.state.port import Stores
from streampipe.topology.nodes import WindowedAggregate
from streampipe.windows import Hopping, Tumbling

_AT_ONCE = 1_000_000
"""Pairs of record and window that are looked at together: bounds memory, changes no result."""


class AlignedStep(WindowedStep):
    """A slot for each (partition, key, window) that is open or still corrected."""

    _slots: Slots
    _spills = True

    def __init__(self, node: WindowedAggregate, effects: Effects, schema: pa.Schema, stores: Stores) -> None:
        super().__init__(node, effects, schema, stores)
        assert isinstance(node.window, Tumbling | Hopping)
        self._alignment = alignment(node.window)

    # --- records ------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame, seen: IntArray) -> None:
        lasts = self._alignment.latest(frame.timestamps)
        # a window that begins later ends later, so a record is late when its last one is closed
        ends = self._alignment.ends(lasts)
        late = ends + (self._grace + self._retention) <= seen
        if late.any():
            begins = self._alignment.starts(lasts)

            def missed(row: int) -> Window:
                return int(begins[row]), int(ends[row]), ")"

            frame, seen = self._late(frame, late, missed), seen[~late]
        if len(frame):
            frame, seen, columns = self._evaluated(frame, seen)
        at_once = _AT_ONCE // self._alignment.depth
        for first in range(0, len(frame), at_once):
            rows = np.arange(first, min(first + at_once, len(frame)))
            if len(rows) == len(frame):
                self._add(frame, seen, columns)
            else:
                self._add(frame.take(rows), seen[rows], {name: column.take(rows) for name, column in columns.items()})
        if len(frame):
            self._count_in(frame)

    def _add(self, frame: Frame, seen: IntArray, columns: dict[str, Column]) -> None:
        lasts = self._alignment.latest(frame.timestamps)
        if self._alignment.depth == 1:
            groups = group(self._key_columns(frame), lasts, frame.partitions)
            starts = self._alignment.starts(lasts[groups.first])
            made = self._find(frame.partitions[groups.first], starts, self._group_keys(frame, groups))
            of_row = made[groups.of]
        else:
            rows, made, of_row = self._in_several(frame, seen, lasts)
            frame, columns = frame.take(rows), {name: column.take(rows) for name, column in columns.items()}
        fresh = self._slots.untouched(made)
        added = self._aggregation.update(frame, columns, of_row)
        touched = of_row[added]
        self._slots.touch(touched, frame.timestamps[added])
        self._slots.pending[touched] = self._slots.emitted[touched] if self._final else True
        self._slots.discard_untouched(fresh)
        self._expect(fresh[self._slots.live[fresh]])

    def _in_several(self, frame: Frame, seen: IntArray, lasts: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """The windows of rows that may be in several: rows by position, one after the other, and the slot of each.

        Also every slot there is among them. A row counts in those of its windows that are still open.
        """
        numbers = lasts[:, None] - np.arange(self._alignment.depth)
        ends = self._alignment.ends(numbers.ravel()).reshape(numbers.shape)
        open_ = (ends > frame.timestamps[:, None]) & (ends + (self._grace + self._retention) > seen[:, None])
        rows, which = np.nonzero(open_ & (numbers >= self._alignment.first))
        of_key = group(self._key_columns(frame), frame.partitions)
        keys = self._group_keys(frame, of_key)
        number = numbers[rows, which]
        pairs = group([], of_key.of[rows], number)
        homes = rows[pairs.first]
        made = self._find(
            frame.partitions[homes],
            self._alignment.starts(number[pairs.first]),
            [keys[g] for g in of_key.of[homes].tolist()],
        )
        return rows, made, made[pairs.of]

    def _expect(self, fresh: IntArray) -> None:
        """These slots are new: note when their windows close."""
        slots = self._slots
        if not len(fresh):
            return
        slots.end[fresh] = ends = self._ends(slots.start[fresh])
        closes, releases = ends + self._grace, ends + (self._grace + self._retention)
        partitions = slots.partition[fresh]
        for partition in np.unique(partitions).tolist():
            mine = partitions == partition
            opened = mine & ~slots.emitted[fresh]
            self._closing[partition].add(closes[opened], fresh[opened])
            if self._retention:
                self._releasing[partition].add(releases[mine], fresh[mine])

    def _ends(self, starts: IntArray) -> IntArray:
        return self._alignment.ends(self._alignment.latest(starts))

    # --- time ---------------------------------------------------------------------------------------------------

    def _falls_due(self, partition: int, names: Sequence[bytes]) -> None:
        keys, starts = parse_window_keys(names)
        away = self._slots.missing(np.full(len(names), partition, np.int64), starts, keys)
        self._bring_back(partition, [names[i] for i in away.tolist()])

    def _close(self, at: IntArray) -> None:
        slots = self._slots
        if self._final:
            self._emit(slots.sorted(at))
            slots.pending[at], slots.emitted[at], slots.dirty[at] = False, True, True
        if not self._retention:
            self._release(at)

    def _release(self, at: IntArray) -> None:
        self._emit(self._slots.sorted(at[self._slots.pending[at]]))
        self._forget(at)

    def _closes(self, at: IntArray) -> IntArray:
        return self._slots.end[at] + self._grace

    def show(self, partition: int) -> None:
        """Emit every window that is open or still corrected."""
        self._emit(self._slots.sorted(self._slots.of(partition)))

    # --- state --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Emit pending updates and write changed windows to stores and changelog."""
        slots, pending = self._slots, np.flatnonzero(self._slots.pending)
        if len(pending):
            self._emit(slots.by_time(pending))
            slots.pending[pending] = False
        self._write(self._moved())
        self._put_away()

    def _came_back(self, partition: int, at: IntArray) -> None:
        if not self._final:
            self._slots.emitted[at] = False
        self._expect(at)
        if self._final and not self._retention:  # they were kept by a policy that is none any more
            kept = at[self._slots.emitted[at]]
            self._releasing[partition].add(self._slots.end[kept], kept)

    def _due(self, at: IntArray, partition: int) -> tuple[IntArray, IntArray]:
        closes = self._closes(at)
        closed = self._slots.emitted[at] if self._final else closes <= self._times[partition]
        return closes + np.where(closed, self._retention, 0), closes
