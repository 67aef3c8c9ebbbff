"""Smallest and largest values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streampipe.operators.accumulators.base import Accumulator, Array, number_type, numbers, valid
from streampipe.operators.frame import Column
from streampipe.operators.grouping import as_physical
from streampipe.records import IntArray


class Extreme(Accumulator):
    """Smallest or largest value of a numeric or temporal column; null of nothing."""

    def __init__(self, kind: pa.DataType, fold: np.ufunc) -> None:
        self._fold = fold
        self._number = number_type(kind)
        self.dtypes = (self._number, np.int64)  # type: ignore[misc]  # the type of the column decides
        self.result_type = kind
        super().__init__()

    @property
    def shape(self) -> str:
        """A smallest is no largest."""
        return f"{self._fold.__name__} {self.result_type}"

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Fold in."""
        slots, array = valid(slots, column)
        self._add(slots, numbers(as_physical(array), self._number), 1)

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Fold in what the sources hold, if anything."""
        best, seen = self.arrays
        some = seen[source] > 0
        source = source[some]
        self._add(into[some], best[source], seen[source])

    def _add(self, slots: IntArray, values: Array, counts: IntArray | int) -> None:
        best, seen = self.arrays
        fresh = seen[slots] == 0
        best[slots[fresh]] = values[fresh]  # any value of the slot will do to start from
        with np.errstate(invalid="ignore"):  # not-a-number among the values is no mistake
            self._fold.at(best, slots, values)
        np.add.at(seen, slots, counts)

    def result(self, slots: IntArray) -> pa.Array:
        """The extremes, in the column's own type."""
        values = pa.array(self.arrays[0][slots], mask=self.arrays[1][slots] == 0)
        physical = as_physical(pa.array([], self.result_type)).type
        return values.cast(physical).cast(self.result_type)
