"""Aggregates that are lists of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.operators.accumulators.base import ObjectAccumulator, runs, valid
from streampipe.operators.accumulators.plain import Plain
from streampipe.operators.frame import Column
from streampipe.operators.grouping import as_physical
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


class Ranked(_Lists):
    """The k largest (or smallest) values, the foremost first, equal ones kept. Not-a-number is larger than all."""

    def __init__(self, kind: pa.DataType, k: int, *, largest: bool = True) -> None:
        super().__init__(kind)
        self._k, self._largest = k, largest
        self._rank: Callable[[Any], Any] | None = None
        if pa.types.is_floating(self._plain.type):
            self._rank = _not_a_number_last

    @property
    def shape(self) -> str:
        """How many values of what type, from which end."""
        return f"{'largest' if self._largest else 'smallest'} {self._k} {self._plain.type}"

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Offer the foremost k values of each slot."""
        slots, array = valid(slots, column)
        ranks = _ranks(array)
        order = np.lexsort((-ranks if self._largest else ranks, slots))
        slots = slots[order]
        starts = np.flatnonzero(np.diff(slots, prepend=-1))
        place = np.arange(len(slots)) - np.repeat(starts, np.diff(starts, append=len(slots)))
        foremost = place < self._k
        values = self._plain.values(array.take(pa.array(order[foremost])))
        for slot, first, end in runs(slots[foremost]):
            self._offer(slot, values[first:end])

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Offer the values of the sources."""
        for slot, other in zip(into.tolist(), source.tolist(), strict=True):
            self._offer(slot, self.objects[other])

    def _offer(self, slot: int, values: list[Any]) -> None:
        every = self.objects[slot] + values
        every.sort(key=self._rank, reverse=self._largest)  # two sorted runs are merged; equal values stay in order
        self.objects[slot] = every[: self._k]


class TextExtreme(Ranked):
    """The smallest or largest text, in the order of its code points; null of nothing."""

    nullable = True

    def __init__(self, kind: pa.DataType, *, largest: bool) -> None:
        super().__init__(kind, 1, largest=largest)
        self.result_type = self._plain.type

    def result(self, slots: IntArray) -> pa.Array:
        """The texts."""
        held = (self.objects[slot] for slot in slots.tolist())
        return self._plain.array([values[0] if values else None for values in held])


def _ranks(array: pa.Array) -> IntArray:
    """Integers in the order of the values, equal where they are."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        ranks = pc.rank(array, sort_keys="ascending", tiebreaker="dense").to_numpy()
    else:
        ranks = np.unique(as_physical(array).to_numpy(zero_copy_only=False), return_inverse=True)[1]
    return np.asarray(ranks).astype(np.int64)


def _not_a_number_last(value: float) -> tuple[bool, float]:
    return value != value, value
