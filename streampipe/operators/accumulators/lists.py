"""Aggregates that are lists of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from streampipe.operators.accumulators.base import ObjectAccumulator, runs, valid
from streampipe.operators.accumulators.plain import Plain
from streampipe.operators.frame import Column
from streampipe.records import IntArray


class _Lists(ObjectAccumulator):
    """Accumulators that keep a list of plain values in each slot, and give it."""

    nullable = False

    def __init__(self, kind: pa.DataType) -> None:
        super().__init__()
        self._plain = Plain(kind)
        self.result_type = pa.list_(pa.field("item", self._plain.type, nullable=False))

    def empty(self) -> list[Any]:
        """No values."""
        return []

    def dump(self, held: list[Any]) -> bytes:
        """The values."""
        return self._plain.dump(held)

    def load(self, data: bytes) -> list[Any]:
        """The values."""
        return self._plain.load(data)

    def result(self, slots: IntArray) -> pa.Array:
        """The lists."""
        lists = [self.objects[slot] for slot in slots.tolist()]
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int32)
        items = self._plain.array([value for values in lists for value in values])
        return pa.ListArray.from_arrays(pa.array(offsets), items, type=self.result_type)


class Collect(_Lists):
    """Values in arrival order, at most `limit` of them: those that come when a list is full are left out."""

    def __init__(self, kind: pa.DataType, limit: int) -> None:
        super().__init__(kind)
        self._limit = limit

    @property
    def shape(self) -> str:
        """How many values of what type."""
        return f"collect {self._limit} {self._plain.type}"

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Append, slot by slot."""
        slots, array = valid(slots, column)
        order = np.argsort(slots, kind="stable")
        values = self._plain.values(array.take(pa.array(order)))
        for slot, first, end in runs(slots[order]):
            self._extend(slot, values[first:end])

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Append the later list."""
        for slot, other in zip(into.tolist(), source.tolist(), strict=True):
            self._extend(slot, self.objects[other])

    def _extend(self, slot: int, values: list[Any]) -> None:
        held = self.objects[slot]
        if (room := self._limit - len(held)) > 0:
            held += values[:room]
