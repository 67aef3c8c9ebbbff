"""First and last values by event time."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from streampipe.operators.accumulators.base import Accumulator, ObjectAccumulator, numbers, valid
from streampipe.operators.accumulators.plain import Plain
from streampipe.operators.frame import Column
from streampipe.operators.grouping import as_physical
from streampipe.records import IntArray


class _Edge(Accumulator):
    """The value of the record with the smallest or largest event time; of equal times the first or last to arrive.

    Arrays: event time in ms, and whether there is a value.
    """

    dtypes: ClassVar[tuple[Any, ...]] = (np.int64, np.bool_)

    def __init__(self, kind: pa.DataType, *, last: bool) -> None:
        super().__init__()
        self._last = last
        self._plain = Plain(kind)
        self.result_type = self._plain.type

    @property
    def shape(self) -> str:
        """Which end, and the type."""
        return f"{'last' if self._last else 'first'} {self.result_type}"

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:
        """Keep what is further out."""
        slots, array, timestamps = valid(slots, column, timestamps)
        rows = self._winners(slots, timestamps)
        self._put(slots[rows], array.take(pa.array(rows)))

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Keep what is further out; of equal times the source's is the later one."""
        times, some = self.arrays[:2]
        into, source = into[some[source]], source[some[source]]
        rows = self._winners(into, times[source])
        self._copy(into[rows], source[rows])

    def _winners(self, slots: IntArray, times: IntArray) -> IntArray:
        """The rows, one for each slot, whose value replaces what the slot holds; their time is set already."""
        order = np.lexsort((times, slots))  # stable: equal times stay in order of arrival
        edge = np.diff(slots[order], append=-1) != 0 if self._last else np.diff(slots[order], prepend=-1) != 0
        rows = order[edge]
        held, some = self.arrays[:2]
        at, new = slots[rows], times[rows]
        further = ~some[at] | ((new >= held[at]) if self._last else (new < held[at]))
        rows = rows[further]
        held[slots[rows]], some[slots[rows]] = times[rows], True
        return np.asarray(rows)

    def _put(self, slots: IntArray, values: pa.Array) -> None:
        raise NotImplementedError

    def _copy(self, into: IntArray, source: IntArray) -> None:
        raise NotImplementedError


class NumberEdge(_Edge):
    """Of a numeric or temporal column: a third array holds the values."""

    def __init__(self, kind: pa.DataType, *, last: bool) -> None:
        self._number: Any = np.float64 if pa.types.is_floating(kind) else np.int64
        self.dtypes = (*_Edge.dtypes, self._number)  # type: ignore[misc]  # the type of the column decides
        super().__init__(kind, last=last)

    def _put(self, slots: IntArray, values: pa.Array) -> None:
        self.arrays[2][slots] = numbers(as_physical(values), self._number)

    def _copy(self, into: IntArray, source: IntArray) -> None:
        self.arrays[2][into] = self.arrays[2][source]

    def result(self, slots: IntArray) -> pa.Array:
        """The values, in the column's own type."""
        _, some, values = self.arrays
        physical = as_physical(pa.array([], self.result_type)).type
        return pa.array(values[slots], mask=~some[slots]).cast(physical, safe=False).cast(self.result_type)


class ObjectEdge(_Edge, ObjectAccumulator):
    """Of any other column: each slot holds the plain value."""

    def empty(self) -> None:
        """No value."""

    def dump(self, held: Any) -> bytes:
        """The value, if any."""
        return b"" if held is None else self._plain.dump([held])

    def load(self, data: bytes) -> Any:
        """The value, if any."""
        return self._plain.load(data)[0] if data else None

    def _put(self, slots: IntArray, values: pa.Array) -> None:
        for slot, value in zip(slots.tolist(), self._plain.values(values), strict=True):
            self.objects[slot] = value

    def _copy(self, into: IntArray, source: IntArray) -> None:
        for slot, other in zip(into.tolist(), source.tolist(), strict=True):
            self.objects[slot] = self.objects[other]

    def result(self, slots: IntArray) -> pa.Array:
        """The values."""
        return self._plain.array([self.objects[slot] for slot in slots.tolist()])
