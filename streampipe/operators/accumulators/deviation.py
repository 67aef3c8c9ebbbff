"""Standard deviation in one pass over columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streampipe.operators.accumulators.base import Accumulator, Array, numbers, valid
from streampipe.operators.frame import Column
from streampipe.records import IntArray


class Deviation(Accumulator):
    """Sample or population standard deviation; null of nothing, and the sample's of a single value.

    Sums of x - K and (x - K)^2, with K the slot's first value: Chan, Golub, LeVeque, Algorithms for computing the
    sample variance (The American Statistician 37, 1983). Shifted by one of the values the sums lose no more digits
    than n allows, wherever the values lie; and unlike Welford's, they can be added row by row in columns.
    Arrays: K, n, sum of x - K, sum of (x - K)^2.
    """

    dtypes = (np.float64, np.int64, np.float64, np.float64)
    result_type = pa.float64()

    def __init__(self, *, population: bool) -> None:
        super().__init__()
        self._population = population

    @property
    def shape(self) -> str:
        """Population or sample."""
        return f"stddev {'population' if self._population else 'sample'}"

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Add."""
        slots, array = valid(slots, column)
        values = numbers(array, np.float64)
        self._start(slots, values)
        shift, n, total, squares = self.arrays
        with np.errstate(invalid="ignore", over="ignore"):  # what is no finite number gives none
            off = values - shift[slots]
            np.add.at(total, slots, off)
            np.add.at(squares, slots, off * off)
        np.add.at(n, slots, 1)

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Add the sums, moved to the K of `into`."""
        shift, n, total, squares = self.arrays
        some = n[source] > 0
        into, source = into[some], source[some]
        self._start(into, shift[source])
        with np.errstate(invalid="ignore", over="ignore"):
            off = shift[source] - shift[into]
            moved = squares[source] + 2 * off * total[source] + n[source] * off * off
            np.add.at(total, into, total[source] + n[source] * off)
            np.add.at(squares, into, moved)
        np.add.at(n, into, n[source])

    def _start(self, slots: IntArray, values: Array) -> None:
        """Slots without a value get the first of theirs as K."""
        fresh = self.arrays[1][slots] == 0
        self.arrays[0][slots[fresh][::-1]] = values[fresh][::-1]  # of an index that comes twice the last one counts

    def result(self, slots: IntArray) -> pa.Array:
        """The deviations."""
        _, n, total, squares = (a[slots] for a in self.arrays)
        free = n if self._population else n - 1
        with np.errstate(invalid="ignore", over="ignore"):
            variance = (squares - total * (total / np.maximum(n, 1))) / np.maximum(free, 1)
            return pa.array(np.sqrt(np.maximum(variance, 0)), mask=free < 1)
