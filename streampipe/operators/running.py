"""Aggregates by key alone: they never end, so each commit says what became of those that changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streampipe.operators.effects import OK, Effects
from streampipe.operators.frame import Frame
from streampipe.operators.grouping import group
from streampipe.operators.keyed_aggregate import KeyedAggregateStep
from streampipe.operators.slots import Slots
from streampipe.records import IntArray
from streampipe.state.port import Stores
from streampipe.topology.nodes import RunningAggregate


class RunningStep(KeyedAggregateStep):
    """A slot for each key."""

    _slots: Slots
    _spills = True
    _lazy = True

    def __init__(self, node: RunningAggregate, effects: Effects, schema: pa.Schema, stores: Stores) -> None:
        super().__init__(node, effects, schema, stores, shape="running")

    def process(self, frame: Frame) -> None:
        """Add records to their keys."""
        frame = self._with_key(frame)
        frame, columns = self._aggregation.evaluated(frame)
        if not len(frame):
            return
        groups = group(self._key_columns(frame), frame.partitions)
        partitions = frame.partitions[groups.first]
        slots = self._find(partitions, np.zeros(len(groups), np.int64), self._group_keys(frame, groups))
        of_row = slots[groups.of]
        added = self._aggregation.update(frame, columns, of_row)
        self._slots.touch(of_row[added], frame.timestamps[added])
        self._slots.discard_untouched(slots)
        frame.origin.mark(frame.rows, OK)

    def flush(self) -> None:
        """Emit what changed, and write it to stores and changelog."""
        self._emit(self._slots.by_time(np.flatnonzero(self._slots.dirty)))
        self._write()
        self._put_away()

    def show(self, partition: int) -> None:
        """Emit the aggregates of every key."""
        self._emit(self._slots.of(partition))

    def _emit(self, at: IntArray) -> None:
        if len(at):
            slots = self._slots
            results = self._aggregation.results(at)
            self._result(self._keys(at), slots.partition[at], (), results, slots.timestamp[at])
