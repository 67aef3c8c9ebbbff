"""What all windows are made of: stream time, what is late, when windows close, and what a result looks like.

How one batch goes: stream time is the running maximum of event time, record by record and partition by partition; a
record whose window is closed by then is late; all others are added; then every window whose time has passed is closed.
Doing it a record at a time would give the same, which is what the tests hold it to.

A window closes at its end plus `grace`, which is when its final result goes out. Under the policy `Update` it stays for
the retention, taking records and correcting its result; then it is released. Else it is released as it closes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa

from streampipe.operators.cold import ColdDeadlines
from streampipe.operators.deadlines import FOREVER, Deadlines
from streampipe.operators.effects import DROPPED, OK, Effects, Reason
from streampipe.operators.frame import Column, Frame, Mask
from streampipe.operators.keyed_aggregate import Change, KeyedAggregateStep
from streampipe.operators.stream_time import LAST_TIME, NEVER, StreamTimes, iso
from streampipe.operators.window_state import STREAM_TIME
from streampipe.records import IntArray
from streampipe.state.port import Stores
from streampipe.topology.nodes import WindowedAggregate
from streampipe.windows import Update

UTC_MS = pa.timestamp("ms", tz="UTC")
BOUNDS = [pa.field("window_start", UTC_MS, nullable=False), pa.field("window_end", UTC_MS, nullable=False)]
Window = tuple[int, int, str]
"""Start and end in ms, and the bracket that says whether the end is inside."""


class WindowedStep(KeyedAggregateStep):
    """Aggregates by key and window, in event time. Which windows there are is for those derived to say."""

    timed = True
    _meta = frozenset({STREAM_TIME})

    def __init__(
        self,
        node: WindowedAggregate,
        effects: Effects,
        schema: pa.Schema,
        stores: Stores,
        more: Sequence[pa.Field] = (),
    ) -> None:
        super().__init__(node, effects, schema, stores, shape=node.window.shape, more=[*BOUNDS, *more])
        self.idle_after_s = None if node.idle_after_ms is None else node.idle_after_ms / 1000
        self._final, self._late_policy, self._grace = node.emit == "final", node.late, node.window.grace_ms
        self._retention = node.late.retention_ms if isinstance(node.late, Update) else 0
        self._times = StreamTimes()
        self._closing: dict[int, Deadlines] = {}
        self._releasing: dict[int, Deadlines] = {}
        self._cold: dict[int, ColdDeadlines] = {}

    # --- records ------------------------------------------------------------------------------------------------

    def process(self, frame: Frame) -> None:
        """Add records to their windows; close what their time closes."""
        frame = self._with_key(frame)
        frame = self._refuse(frame, (frame.timestamps < 0) | (frame.timestamps >= LAST_TIME), "timestamp")
        if len(frame):
            self._take(frame, self._times.running(frame))
            self._pass_time()

    def _take(self, frame: Frame, seen: IntArray) -> None:
        """Add rows to their windows, or say that they are late; `seen` is stream time as each row sees it."""
        raise NotImplementedError

    def _evaluated(self, frame: Frame, seen: IntArray) -> tuple[Frame, IntArray, dict[str, Column]]:
        """The rows whose aggregates can be evaluated, with what goes with them."""
        of_record = np.zeros(len(frame.origin.keys), np.int64)
        of_record[frame.indexes] = seen
        kept, columns = self._aggregation.evaluated(frame)
        return kept, seen if kept is frame else of_record[kept.indexes], columns

    def _late(self, frame: Frame, late: Mask, window: Callable[[int], Window]) -> Frame:
        """The rows that are not late; the others go by policy, with the last window that they missed."""
        if not late.any():
            return frame
        rows = np.flatnonzero(late)
        if self._late_policy == "drop":
            frame.origin.mark(frame.indexes[rows], DROPPED)
            self.effects.late_drops[self.name] += len(rows)
        else:
            self.effects.dead_letters(frame, rows, self.name, lambda row: _late_reason(*window(row)))
        return frame.filter(~late)

    def _count_in(self, frame: Frame) -> None:
        frame.origin.mark(frame.rows, OK)

    # --- time ---------------------------------------------------------------------------------------------------

    def hold_time(self) -> None:
        """Stream time stands until `go_on`."""
        self._times.hold()

    def go_on(self) -> None:
        """Close what time has passed."""
        self._times.go_on()
        self._pass_time()

    def _pass_time(self) -> None:
        """Close and release what stream time has passed."""
        for partition, time in self._times.items():
            if time >= self._cold[partition].first:
                self._falls_due(partition, self._cold[partition].pop(time))
        closed, released = [], []
        for partition, time in self._times.items():
            if time >= self._closing[partition].first:
                closed.append(self._closed(self._closing[partition].pop(time), partition))
            if time >= self._releasing[partition].first:
                released.append(self._released(self._releasing[partition].pop(time), partition))
        if closed:
            self._close(np.concatenate(closed))
        if released:
            self._release(np.concatenate(released))

    def _falls_due(self, partition: int, names: Sequence[bytes]) -> None:
        """Bring back those of these windows that are in the store alone, by their state keys."""
        raise NotImplementedError

    def _closed(self, due: IntArray, partition: int) -> IntArray:  # noqa: ARG002 - for those whose ends move
        """Those of the due slots whose windows are closed indeed."""
        return due

    def _released(self, due: IntArray, partition: int) -> IntArray:  # noqa: ARG002 - likewise
        """Those of the due slots that are over indeed."""
        return due

    def _close(self, at: IntArray) -> None:
        """The windows of these slots are closed."""
        raise NotImplementedError

    def _release(self, at: IntArray) -> None:
        """These slots are over."""
        raise NotImplementedError

    def _horizon(self, partition: int) -> int | None:
        """Stream time in ms by which all windows of a partition are closed; None when there are none."""
        closes = self._closes(self._slots.of(partition))  # of those that are closed it has passed, which does no harm
        last = max(int(closes.max(initial=NEVER)), self._cold[partition].last_close)
        return None if last == NEVER else last

    def _closes(self, at: IntArray) -> IntArray:
        """Stream time at which the windows of these slots close for good, in ms."""
        raise NotImplementedError

    def close_all(self) -> None:
        """Close every window, as if time had passed all of them; later records for them are late."""
        for partition in self._open:
            if (horizon := self._horizon(partition)) is not None:
                self._times.follow(partition, horizon)
        self._pass_time()

    def advance(self, now_ms: int, idle: Collection[int]) -> None:
        """Stream time of idle partitions follows the wall clock while something waits for it."""
        for partition in idle:
            if partition in self._open and self._waits(partition):
                self._times.follow(partition, now_ms)
        self._pass_time()

    def _waits(self, partition: int) -> bool:
        """Whether something of a partition waits for time to pass."""
        cold = self._cold[partition]
        if len(self._closing[partition]) or cold.last_close > self._times[partition]:
            return True
        return not self._final and (len(self._releasing[partition]) > 0 or cold.first < FOREVER)

    # --- results ------------------------------------------------------------------------------------------------

    def _emit(self, at: IntArray, more: Sequence[pa.Array] = ()) -> None:
        """The results of these slots, in this order."""
        if len(at):
            slots = self._slots
            bounds = [pa.array(column[at]).cast(UTC_MS) for column in (slots.start, slots.end)]
            results = self._aggregation.results(at)
            self._result(self._keys(at), slots.partition[at], [*bounds, *more], results, slots.timestamp[at])

    # --- state --------------------------------------------------------------------------------------------------

    def _moved(self) -> list[Change]:
        """Stream times that changed since they were last written."""
        return [(p, STREAM_TIME, self._encode_time(p, t)) for p, t in self._times.take_moved()]

    def _meta_of(self, partition: int) -> list[Change]:
        time = self._times[partition]
        return [] if time == NEVER else [(partition, STREAM_TIME, self._encode_time(partition, time))]

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty."""
        super().open(partition)
        self._times.open(partition)
        self._closing[partition], self._releasing[partition] = Deadlines(), Deadlines()
        self._cold[partition] = ColdDeadlines(self._open[partition])

    def _goes_cold(self, at: IntArray) -> None:
        slots = self._slots
        stay = slots.live.copy()
        stay[at] = False
        for partition in np.unique(slots.partition[at]).tolist():
            mine = at[slots.partition[at] == partition]
            self._cold[partition].put(self._codec.keys(slots, mine), *self._due(mine, partition))
            self._closing[partition].keep(stay)
            self._releasing[partition].keep(stay)

    def _due(self, at: IntArray, partition: int) -> tuple[IntArray, IntArray]:
        """When the next thing is due for these slots, in ms, and when they close for good, or did."""
        raise NotImplementedError

    def _meta_came_back(self, partition: int, meta: Mapping[bytes, bytes]) -> None:
        self._times.restore(partition, self._decode_time(partition, meta[STREAM_TIME]))

    def _encode_time(self, partition: int, stream_time: int) -> bytes:  # noqa: ARG002 - for those that keep more
        return self._codec.encode_time(stream_time)

    def _decode_time(self, partition: int, value: bytes) -> int:  # noqa: ARG002 - likewise
        return self._codec.decode_time(value)

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        if partition in self._open:
            self._times.close(partition)
            del self._closing[partition], self._releasing[partition], self._cold[partition]
        super().close(partition)


def _late_reason(start: int, end: int, bracket: str) -> Reason:
    window = f"[{iso(start)}, {iso(end)}{bracket}"
    return Reason("late", "LateRecord", f"window {window} was closed already", {"window": window})
