"""Approximate quantiles: a DDSketch in columns (Masson, Rim, Lee: DDSketch, VLDB 2019)."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streampipe.aggregates import RELATIVE_ERROR
from streampipe.operators.accumulators.base import ObjectAccumulator, numbers, valid
from streampipe.operators.frame import Column
from streampipe.records import IntArray

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


class Quantile(ObjectAccumulator):
    """DDSketch: counts by bucket. Not-a-number and the infinities are left out, as null is."""

    result_type = pa.float64()

    def __init__(self, q: float) -> None:
        super().__init__()
        self._q = q

    @property
    def shape(self) -> str:
        """Which quantile."""
        return f"quantile {self._q}"

    def empty(self) -> dict[int, int]:
        """No buckets."""
        return {}

    def dump(self, held: dict[int, int]) -> bytes:
        """Pairs of bucket and count, by bucket."""
        return np.array(sorted(held.items()), ">i8").tobytes()

    def load(self, data: bytes) -> dict[int, int]:
        """The counts by bucket."""
        return dict(np.frombuffer(data, ">i8").reshape(-1, 2).tolist())

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Count into buckets."""
        slots, array = valid(slots, column)
        values = numbers(array, np.float64)
        real = np.isfinite(values)
        pairs = np.stack([slots[real], buckets(values[real])])
        distinct, counts = np.unique(pairs, axis=1, return_counts=True)
        for slot, bucket, n in zip(*distinct.tolist(), counts.tolist(), strict=True):
            self._count(slot, bucket, n)

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Add the counts."""
        for slot, other in zip(into.tolist(), source.tolist(), strict=True):
            for bucket, n in self.objects[other].items():
                self._count(slot, bucket, n)

    def _count(self, slot: int, bucket: int, n: int) -> None:
        sketch = self.objects[slot]
        sketch[bucket] = sketch.get(bucket, 0) + n

    def result(self, slots: IntArray) -> pa.Array:
        """The quantiles."""
        return pa.array([self._of(self.objects[slot]) for slot in slots.tolist()], pa.float64())

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
