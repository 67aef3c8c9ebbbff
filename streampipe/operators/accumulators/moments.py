"""Counts, sums and means.

They are added row by row in the order of the records (`np.add.at` is unbuffered), never by partial sums of a batch,
so that no cut into batches can change a float's last digit. Merging adds what the parts added up to.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streampipe.operators.accumulators.base import Accumulator, number_type, numbers, valid
from streampipe.operators.frame import Column
from streampipe.records import IntArray


class _Additive(Accumulator):
    """Accumulators whose arrays are added up."""

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Add."""
        for array in self.arrays:
            np.add.at(array, into, array[source])


class Count(_Additive):
    """Number of rows, or of the values that are not null."""

    dtypes = (np.int64,)
    result_type = pa.int64()
    nullable = False

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Count."""
        if column is not None:
            slots, _ = valid(slots, column)
        np.add.at(self.arrays[0], slots, 1)

    def result(self, slots: IntArray) -> pa.Array:
        """The counts."""
        return pa.array(self.arrays[0][slots])


class Sum(_Additive):
    """Sum of integers (64-bit, without a sign where they are UInt64) or of doubles; 0 of nothing."""

    nullable = False

    def __init__(self, kind: pa.DataType) -> None:
        self._number = number_type(kind)
        self.dtypes = (self._number,)  # type: ignore[misc]  # the type of the column decides
        self.result_type = pa.from_numpy_dtype(self._number)
        super().__init__()

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Add."""
        slots, array = valid(slots, column)
        np.add.at(self.arrays[0], slots, numbers(array, self._number))

    def result(self, slots: IntArray) -> pa.Array:
        """The sums."""
        return pa.array(self.arrays[0][slots])


class Mean(_Additive):
    """Arithmetic mean; null of nothing."""

    dtypes = (np.float64, np.int64)
    result_type = pa.float64()

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Add and count."""
        slots, array = valid(slots, column)
        np.add.at(self.arrays[0], slots, numbers(array, np.float64))
        np.add.at(self.arrays[1], slots, 1)

    def result(self, slots: IntArray) -> pa.Array:
        """The means."""
        total, n = self.arrays[0][slots], self.arrays[1][slots]
        return pa.array(total / np.maximum(n, 1), mask=n == 0)
