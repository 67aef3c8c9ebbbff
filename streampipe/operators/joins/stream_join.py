"""Joins of two streams: pairs of records with one key whose times are near each other.

How one batch goes: stream time runs as in windows, over both sides; a record that no later one may join is late; every
other one meets the partners that are there and not over, and waits for those to come. What was kept for a left or outer
join without ever meeting one goes out alone when it is over. Doing it a record at a time would give the same, in the
same order by key: first what a record's time puts an end to, then the record's own pairs, by the partner's time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.edges import report_failures
from streampipe.operators.effects import OK, Effects, Step
from streampipe.operators.frame import Frame, Origin
from streampipe.operators.grouping import check_key_columns
from streampipe.operators.joins.join_buffer import KEY, Entries, Probe
from streampipe.operators.joins.join_state import with_state
from streampipe.operators.joins.waiting import WaitingStep
from streampipe.operators.tables.table_lookup import added_columns
from streampipe.records import IntArray
from streampipe.state.port import Stores
from streampipe.topology.nodes import StreamJoin

LEFT, RIGHT = 0, 1
_ALONE, _PAIR = 0, 1


class JoinPort(Step):
    """One side's way into a join."""

    def __init__(self, join: StreamJoinStep, side: int) -> None:
        super().__init__(join.name, join.effects)
        self._join, self._side = join, side

    def process(self, frame: Frame) -> None:
        """Records of this side."""
        self._join.take(self._side, frame)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Results: their columns, and what decides their order (`position` in the batch, kind, time, number)."""

    columns: pa.RecordBatch
    keys: pa.Array
    partitions: IntArray
    times: IntArray
    order: tuple[IntArray, ...]


class StreamJoinStep(WaitingStep):
    """Joins what comes in through `ports`, left and right."""

    def __init__(self, node: StreamJoin, effects: Effects, left: pa.Schema, right: pa.Schema, stores: Stores) -> None:
        assert node.key is not None
        reaches = node.after_ms + node.grace_ms, node.before_ms + node.grace_ms
        sides = list(zip((left, right), reaches, strict=True))
        super().__init__(node.name, effects, node.changelog, node.key, node.late, sides, stores)
        self.idle_after_s = None if node.idle_after_ms is None else node.idle_after_ms / 1000
        _check_keys(node, left, right)
        self._added = added_columns(node, left, right.names, node.key, "the right stream")
        self.schema = _schema(node, left, right, self._added)
        self._span = (node.before_ms, node.after_ms), (node.after_ms, node.before_ms)
        self._kept = node.how in ("left", "outer"), node.how == "outer"
        self.ports = JoinPort(self, LEFT), JoinPort(self, RIGHT)

    # --- records ------------------------------------------------------------------------------------------------

    def take(self, side: int, frame: Frame) -> None:
        """Join records of a side with the other one, and keep them for records to come."""
        frame = self._timely(frame)
        if not len(frame):
            return
        seen, partitions = self._times.running(frame), frame.partitions
        late = frame.timestamps + self._sides[side].reach_ms < seen
        if late.any():
            self._refuse_late(frame, late, *self._span[side], "no partner from {window} can come any more")
        positions = np.flatnonzero(~late)
        results = self._met(side, frame.take(positions), positions, seen[positions]) if len(positions) else []
        self._send([*results, *self._left_over(partitions, seen)])

    def _met(self, side: int, frame: Frame, positions: IntArray, seen: IntArray) -> list[_Rows]:
        """The pairs of records that are on time; they are kept from now on. `positions`: theirs in the batch."""
        encoded = self._codec.bodies(side, frame.arrow(self._schemas[side].names))
        report_failures(self.effects, frame, self.name, encoded.failures)
        if encoded.rows is not None:
            frame, positions, seen = frame.take(encoded.rows), positions[encoded.rows], seen[encoded.rows]
        schema = self._schemas[side]
        rows = with_state(frame.arrow(schema.names), schema, self._record_keys(frame), encoded.values)
        entries = Entries.of(rows, frame.partitions, frame.timestamps, self._numbered(frame.partitions))
        keyed = rows.column(KEY).is_valid().to_numpy(zero_copy_only=False)
        frame.origin.mark(frame.indexes[keyed | self._kept[side]], OK)
        results = []
        if not keyed.all():  # null equals nothing
            if self._kept[side]:
                lonely = entries.take(np.flatnonzero(~keyed))
                results.append(self._lonely(side, lonely, positions[~keyed], _PAIR))
            entries, positions, seen = entries.take(np.flatnonzero(keyed)), positions[keyed], seen[keyed]
        self._cold.gather(entries.rows.column(KEY), entries.meta["partition"])
        results += self._pairs(side, entries, positions, seen)
        entries.meta["dirty"] = True
        self._sides[side].add(entries)
        return results

    def _pairs(self, side: int, entries: Entries, positions: IntArray, seen: IntArray) -> list[_Rows]:
        before, after = self._span[side]
        times, partitions = entries.meta["time"], entries.meta["partition"]
        probe = Probe(entries.rows.column(KEY), partitions, times - before, times + after, seen)
        results = []
        for others, at, rows in self._sides[1 - side].partners(probe):
            if self._kept[1 - side]:
                fresh = at[~others.meta["matched"][at]]
                others.meta["matched"][fresh] = others.meta["dirty"][fresh] = True
            if self._kept[side]:
                entries.meta["matched"][rows] = True
            mine, partners = entries.take(rows), others.take(at)
            theirs = partners.meta["time"]
            order = positions[rows], np.full(len(rows), _PAIR), theirs, partners.meta["seq"]
            results.append(self._rows(side, mine, partners.rows, np.maximum(times[rows], theirs), order))
        return results

    # --- results ------------------------------------------------------------------------------------------------

    def _left_over(self, partitions: IntArray, seen: IntArray) -> list[_Rows]:
        """What is over without ever having met a partner; by rows with this stream time, or by the clock."""
        self._cold.fall_due(self._times.items())
        times, results = dict(self._times.items()), []
        for side in (LEFT, RIGHT):
            if self._kept[side]:
                for entries in self._sides[side].pop_over(times):
                    self._forget(side, entries)
                    lonely = entries.take(np.flatnonzero(~entries.meta["matched"]))
                    over = lonely.meta["time"] + self._sides[side].reach_ms
                    positions = _first_beyond(over, lonely.meta["partition"], partitions, seen)
                    results.append(self._lonely(side, lonely, positions, _ALONE))
        return results

    def _lonely(self, side: int, entries: Entries, positions: IntArray, kind: int) -> _Rows:
        over = entries.meta["time"] + self._sides[side].reach_ms
        order = positions, np.full(len(entries), kind), over, entries.meta["seq"]
        return self._rows(side, entries, None, entries.meta["time"], order)

    def _rows(
        self, side: int, mine: Entries, theirs: pa.RecordBatch | None, times: IntArray, order: tuple[IntArray, ...]
    ) -> _Rows:
        left, right = (mine.rows, theirs) if side == LEFT else (theirs, mine.rows)
        sources = [(mine.rows if n in self._on else left, n, n) for n in self._schemas[LEFT].names]
        sources += [(right, old, name) for name, old in self._added.items()]
        arrays = [_column(rows, old, self.schema.field(name), len(mine)) for rows, old, name in sources]
        columns = pa.RecordBatch.from_arrays(arrays, names=self.schema.names)
        return _Rows(columns, mine.rows.column(KEY), mine.meta["partition"], times, order)

    def _send(self, results: Sequence[_Rows]) -> None:
        results = [rows for rows in results if len(rows.keys)]
        if not results:
            return
        order = np.lexsort([np.concatenate(column) for column in zip(*(r.order for r in results), strict=True)][::-1])
        columns = pa.Table.from_batches([r.columns for r in results]).combine_chunks().to_batches()[0]
        keys = pa.concat_arrays([r.keys for r in results]).take(pa.array(order)).to_pylist()
        times, partitions = (np.concatenate([getattr(r, name) for r in results]) for name in ("times", "partitions"))
        self.emit(
            Frame.of(columns.take(pa.array(order)), Origin(self.name, keys, times[order], partitions[order]))
        )  # fmt: skip

    # --- time ---------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """What is over goes out."""
        super().go_on()
        self._send(self._left_over(_NONE, _NONE))

    def advance(self, now_ms: int, idle: Collection[int]) -> None:
        """Stream time of idle partitions follows the wall clock while a record waits for its end."""
        for partition in idle:
            if partition in self._open and self._waits(partition):
                self._times.follow(partition, now_ms)
        self._send(self._left_over(_NONE, _NONE))

    def _waits(self, partition: int) -> bool:
        kept = [side for side in (LEFT, RIGHT) if self._kept[side]]
        return any(self._cold.unmatched[side, partition] > 0 for side in kept) or any(
            not entries.meta["matched"].all() for side in kept for entries in self._sides[side].of(partition)
        )

    def close_all(self) -> None:
        """Everything that waits is over, as if time had passed; later records for it are late."""
        self._follow_to_the_end()
        self._send(self._left_over(_NONE, _NONE))

    def show(self, partition: int) -> None:
        """Emit the records that wait, as if they had met nobody."""
        for side, buffer in enumerate(self._sides):
            for entries in buffer.of(partition):
                self._send([self._lonely(side, entries, np.zeros(len(entries), np.int64), _ALONE)])


_NONE = np.zeros(0, np.int64)


def _first_beyond(times: IntArray, homes: IntArray, partitions: IntArray, seen: IntArray) -> IntArray:
    """For each time the first row of its partition that sees a later stream time; 0 where time went on without rows."""
    first = np.zeros(len(times), np.int64)
    for partition in np.unique(homes).tolist():
        rows, mine = np.flatnonzero(partitions == partition), homes == partition
        if len(rows):
            first[mine] = rows[np.searchsorted(seen[rows], times[mine], "right")]
    return first


def _column(rows: pa.RecordBatch | None, name: str, field: pa.Field, count: int) -> pa.Array:
    return pa.nulls(count, field.type) if rows is None else rows.column(name)


def _check_keys(node: StreamJoin, left: pa.Schema, right: pa.Schema) -> None:
    assert node.key is not None
    for schema in (left, right):
        check_key_columns(node.name, node.key, schema)
    for name in node.key:
        if left.field(name).type != right.field(name).type:
            raise TopologyError(
                f"node {node.name!r}: key column {name!r} is {left.field(name).type} on the left and "
                f"{right.field(name).type} on the right; cast one of them before its key_by"
            )


def _schema(node: StreamJoin, left: pa.Schema, right: pa.Schema, added: dict[str, str]) -> pa.Schema:
    fields = [f.with_nullable(f.nullable or (node.how == "outer" and f.name not in (node.key or ()))) for f in left]
    for new, old in added.items():
        field = right.field(old)
        fields.append(pa.field(new, field.type, field.nullable or node.how != "inner"))
    return pa.schema(fields)
