"""Of records with one key whose times are near each other, only the first that comes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streampipe.operators.edges import refuse, report_failures
from streampipe.operators.effects import Effects
from streampipe.operators.frame import Frame, Origin
from streampipe.operators.grouping import check_key_columns
from streampipe.operators.joins.join_buffer import BODY, KEY, Entries, Probe, firsts
from streampipe.operators.joins.join_state import with_state
from streampipe.operators.joins.waiting import WaitingStep
from streampipe.records import IntArray
from streampipe.state.port import Stores
from streampipe.topology.nodes import Deduplicate


class DeduplicateStep(WaitingStep):
    """Lets a record through unless one of its key went through with a time less than `within_ms` away."""

    timed = False  # nothing waits for time to pass

    def __init__(self, node: Deduplicate, effects: Effects, schema: pa.Schema, stores: Stores) -> None:
        assert node.key is not None
        check_key_columns(node.name, node.key, schema)
        kept = pa.schema([schema.field(name) for name in node.key])
        reach_ms = node.within_ms + node.grace_ms
        super().__init__(node.name, effects, node.changelog, node.key, node.late, [(kept, reach_ms)], stores)
        self._within_ms, self._grace_ms = node.within_ms, node.grace_ms
        self.schema = schema

    def process(self, frame: Frame) -> None:
        """Hand on what is no duplicate."""
        frame = self._timely(frame)
        keyless = np.array([key is None for key in self._record_keys(frame)], np.bool_)
        frame = refuse(self.effects, frame, keyless, self.name, "key")
        if not len(frame):
            return
        seen = self._times.running(frame)
        late = frame.timestamps + self._grace_ms < seen
        if late.any():
            before_ms = after_ms = self._within_ms - 1  # duplicates are nearer than that
            self._refuse_late(frame, late, before_ms, after_ms, "what went through in {window} is not known any more")
        rows = np.flatnonzero(~late)
        if len(rows):
            self.emit(self._first_ones(frame.take(rows), seen[rows]))

    def _first_ones(self, frame: Frame, seen: IntArray) -> Frame:
        encoded = self._codec.bodies(0, frame.arrow(self._on))
        report_failures(self.effects, frame, self.name, encoded.failures)
        if encoded.rows is not None:
            frame, seen = frame.take(encoded.rows), seen[encoded.rows]
        columns = with_state(frame.arrow(self._on), self._schemas[0], self._record_keys(frame), encoded.values)
        self._cold.gather(columns.column(KEY), frame.partitions)
        passed: list[IntArray] = []
        left = np.arange(len(frame))
        while len(left):  # as often as one key has records that are not near each other
            left = left[~self._met(columns, frame, seen, left)]
            first = left[firsts(columns.column(KEY).take(pa.array(left)), frame.partitions[left])]
            entries = Entries.of(
                columns.take(pa.array(first)), frame.partitions[first], frame.timestamps[first],
                self._numbered(frame.partitions[first]),
            )  # fmt: skip
            entries.meta["dirty"] = True
            self._sides[0].add(entries)
            passed.append(first)
            left = np.setdiff1d(left, first, assume_unique=True)
        return frame.take(np.sort(np.concatenate(passed)))

    def _met(self, columns: pa.RecordBatch, frame: Frame, seen: IntArray, rows: IntArray) -> np.ndarray:
        """Which of these rows are near to one of their key that went through."""
        times = frame.timestamps[rows]
        near = self._within_ms - 1
        keys = columns.column(KEY).take(pa.array(rows))
        probe = Probe(keys, frame.partitions[rows], times - near, times + near, seen[rows])
        met = np.zeros(len(rows), np.bool_)
        for _, _, of in self._sides[0].partners(probe):
            met[of] = True
        return met

    def show(self, partition: int) -> None:
        """Emit what is remembered: keys, and the times they went through with."""
        for entries in self._sides[0].of(partition):
            rows = entries.rows
            origin = Origin(
                self.name, rows.column(KEY).to_pylist(), entries.meta["time"].copy(), entries.meta["partition"].copy()
            )  # fmt: skip
            self.emit(Frame.of(rows.drop_columns([KEY, BODY]), origin))
