"""What aggregates keep for each group, as columns of slots: one slot a (partition, key, window).

An accumulator owns one or more NumPy arrays indexed by slot. Updates go row by row in the order of the records
(`np.add.at` is unbuffered), never by partial sums, so that no cut into batches can change a float's last digit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streampipe.aggregates import RELATIVE_ERROR, Aggregate
from streampipe.errors import TopologyError
from streampipe.operators.frame import Column
from streampipe.operators.grouping import as_physical
from streampipe.records import IntArray

Array = npt.NDArray[Any]


class Accumulator:
    """State of one aggregate. `dtypes` are its fixed-size arrays; `objects` says whether it keeps sketches as well."""

    dtypes: ClassVar[tuple[Any, ...]] = ()
    objects: ClassVar[bool] = False
    result_type: pa.DataType

    def __init__(self) -> None:
        self.arrays: list[Array] = [np.zeros(0, dtype) for dtype in self.dtypes]
        self.sketches: list[dict[int, int]] = []

    @property
    def shape(self) -> str:
        """What tells its state from that of other aggregates."""
        return type(self).__name__

    def grow(self, size: int) -> None:
        """Make room for `size` slots."""
        self.arrays = [np.concatenate([a, np.zeros(size - len(a), a.dtype)]) for a in self.arrays]
        if self.objects:
            self.sketches += [{} for _ in range(size - len(self.sketches))]

    def reset(self, slots: IntArray) -> None:
        """Forget what these slots held."""
        for array in self.arrays:
            array[slots] = 0
        if self.objects:
            for slot in slots.tolist():
                self.sketches[slot] = {}

    def update(self, slots: IntArray, column: Column | None) -> None:
        """Add row i of the column to slot slots[i]."""
        raise NotImplementedError

    def result(self, slots: IntArray) -> pa.Array:
        """The aggregate of these slots."""
        raise NotImplementedError


def _valid(slots: IntArray, column: Column | None) -> tuple[IntArray, pa.Array]:
    assert column is not None
    array = column.arrow
    if array.null_count:
        slots = slots[array.is_valid().to_numpy(zero_copy_only=False)]
        array = array.drop_null()
    return slots, array


class Count(Accumulator):
    """Number of rows, or of the values that are not null."""

    dtypes = (np.int64,)
    result_type = pa.int64()

    def update(self, slots: IntArray, column: Column | None) -> None:
        """Count."""
        if column is not None:
            slots, _ = _valid(slots, column)
        np.add.at(self.arrays[0], slots, 1)

    def result(self, slots: IntArray) -> pa.Array:
        """The counts."""
        return pa.array(self.arrays[0][slots])


class Sum(Accumulator):
    """Sum of integers (64-bit) or of doubles; 0 of nothing."""

    def __init__(self, kind: pa.DataType) -> None:
        self._number = np.float64 if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else np.int64
        self.dtypes = (self._number,)  # type: ignore[misc]  # the type of the column decides
        self.result_type = pa.from_numpy_dtype(self._number)
        super().__init__()

    def update(self, slots: IntArray, column: Column | None) -> None:
        """Add."""
        slots, array = _valid(slots, column)
        np.add.at(self.arrays[0], slots, _numbers(array, self._number))

    def result(self, slots: IntArray) -> pa.Array:
        """The sums."""
        return pa.array(self.arrays[0][slots])


class Mean(Accumulator):
    """Arithmetic mean; null of nothing."""

    dtypes = (np.float64, np.int64)
    result_type = pa.float64()

    def update(self, slots: IntArray, column: Column | None) -> None:
        """Add and count."""
        slots, array = _valid(slots, column)
        np.add.at(self.arrays[0], slots, _numbers(array, np.float64))
        np.add.at(self.arrays[1], slots, 1)

    def result(self, slots: IntArray) -> pa.Array:
        """The means."""
        total, n = self.arrays[0][slots], self.arrays[1][slots]
        return pa.array(total / np.maximum(n, 1), mask=n == 0)


class Extreme(Accumulator):
    """Smallest or largest value of a numeric or temporal column; null of nothing."""

    def __init__(self, kind: pa.DataType, fold: np.ufunc) -> None:
        self._fold = fold
        self._number = np.float64 if pa.types.is_floating(kind) else np.int64
        self.dtypes = (self._number, np.int64)  # type: ignore[misc]  # the type of the column decides
        self.result_type = kind
        super().__init__()

    @property
    def shape(self) -> str:
        """A smallest is no largest."""
        return f"{self._fold.__name__} {self.result_type}"

    def update(self, slots: IntArray, column: Column | None) -> None:
        """Fold in."""
        slots, array = _valid(slots, column)
        values = _numbers(as_physical(array), self._number)
        best, seen = self.arrays
        fresh = seen[slots] == 0
        best[slots[fresh]] = values[fresh]  # any value of the slot will do to start from
        with np.errstate(invalid="ignore"):  # not-a-number among the values is no mistake
            self._fold.at(best, slots, values)
        np.add.at(seen, slots, 1)

    def result(self, slots: IntArray) -> pa.Array:
        """The extremes, in the column's own type."""
        values = pa.array(self.arrays[0][slots], mask=self.arrays[1][slots] == 0)
        physical = as_physical(pa.array([], self.result_type)).type
        return values.cast(physical).cast(self.result_type)


_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = float(np.log(_GAMMA))
_SMALLEST = 1e-9
_OFFSET = 1 << 20  # larger than any bucket number, so that the sign of a bucket is the sign of its values


def buckets(values: npt.NDArray[np.float64]) -> IntArray:
    """DDSketch bucket of each value, ordered as the values are: 0 for zero, negative for negative values."""
    size = np.abs(values)
    zero = size < _SMALLEST
    number = np.ceil(np.log(np.where(zero, 1.0, size)) / _LOG_GAMMA).astype(np.int64) + _OFFSET
    return np.where(zero, 0, np.where(values < 0, -number, number))


def bucket_value(bucket: int) -> float:
    """The value that stands for all values of a bucket, within RELATIVE_ERROR of each."""
    if bucket == 0:
        return 0.0
    # one factor less in the power, which raises when it overflows, as it would for the largest doubles
    value = min(_GAMMA ** (abs(bucket) - _OFFSET - 1) * (2 * _GAMMA / (_GAMMA + 1)), sys.float_info.max)
    return float(-value if bucket < 0 else value)


class Quantile(Accumulator):
    """DDSketch: counts by bucket. Not-a-number and the infinities are left out, as null is."""

    objects = True
    result_type = pa.float64()

    def __init__(self, q: float) -> None:
        super().__init__()
        self._q = q

    def update(self, slots: IntArray, column: Column | None) -> None:
        """Count into buckets."""
        slots, array = _valid(slots, column)
        values = _numbers(array, np.float64)
        real = np.isfinite(values)
        pairs = np.stack([slots[real], buckets(values[real])])
        distinct, counts = np.unique(pairs, axis=1, return_counts=True)
        for slot, bucket, n in zip(*distinct.tolist(), counts.tolist(), strict=True):
            sketch = self.sketches[slot]
            sketch[bucket] = sketch.get(bucket, 0) + n

    def result(self, slots: IntArray) -> pa.Array:
        """The quantiles."""
        return pa.array([self._of(self.sketches[slot]) for slot in slots.tolist()], pa.float64())

    def _of(self, sketch: dict[int, int]) -> float | None:
        if not sketch:
            return None
        rank = int(self._q * (sum(sketch.values()) - 1))
        seen = 0
        for bucket in sorted(sketch):
            seen += sketch[bucket]
            if seen > rank:
                return bucket_value(bucket)
        raise AssertionError("a rank below the count is in some bucket")


def _numbers(array: pa.Array, dtype: Any) -> Array:
    return np.asarray(array.cast(pa.from_numpy_dtype(dtype), safe=False).to_numpy(zero_copy_only=False))


def accumulator(node: str, name: str, aggregate: Aggregate, kind: pa.DataType | None) -> Accumulator:
    """The accumulator of an aggregate over a column of this type. Raises TopologyError when it makes no sense."""
    if aggregate.kind == "count":
        return Count()
    assert kind is not None
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    temporal = pa.types.is_temporal(kind)
    makers: dict[str, tuple[bool, Callable[[], Accumulator]]] = {
        "sum": (numeric or pa.types.is_boolean(kind), lambda: Sum(kind)),
        "mean": (numeric or pa.types.is_boolean(kind), Mean),
        "min": (numeric or temporal, lambda: Extreme(kind, np.minimum)),
        "max": (numeric or temporal, lambda: Extreme(kind, np.maximum)),
        "quantile": (numeric, lambda: Quantile(aggregate.q)),
    }
    fits, make = makers[aggregate.kind]
    if not fits:
        raise TopologyError(
            f"node {node!r}: {name}=agg.{aggregate.kind}({aggregate.column}) over a column of type {kind}"
        )
    return make()
