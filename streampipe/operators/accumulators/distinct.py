"""Approximate number of distinct values: HyperLogLog over columns, exact for small sets.

Flajolet, Fusy, Gandouet, Meunier: HyperLogLog (AofA 2007), with 64-bit hashes and the estimator of Ertl: New
cardinality estimation algorithms for HyperLogLog sketches (arXiv:1702.01284, algorithm 6), which needs no tables of
measured bias. Held are maxima, and the estimate depends on them alone, so neither order nor repetition shows;
estimators that look at history (HIP) were ruled out for that.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streampipe.operators.accumulators.base import ObjectAccumulator, runs, valid
from streampipe.operators.accumulators.hashing import hashes
from streampipe.operators.frame import Column
from streampipe.records import IntArray

Held = npt.NDArray[Any]
"""Sorted distinct hashes (uint64) or registers (uint8)."""

_ALPHA = 1 / (2 * math.log(2))


class ApproxDistinct(ObjectAccumulator):
    """A slot holds the distinct hashes, sorted, while they are fewer bytes than the 2^p registers; then those."""

    result_type = pa.int64()
    nullable = False

    def __init__(self, kind: pa.DataType, precision: int) -> None:
        super().__init__()
        self._kind, self._precision = kind, precision
        self._registers = 1 << precision
        self._exact = self._registers // 8

    @property
    def shape(self) -> str:
        """The precision, and the type, since equal values of other types have other hashes."""
        return f"approx_distinct {self._precision} {self._kind}"

    def empty(self) -> Held:
        """No hashes."""
        return np.zeros(0, np.uint64)

    def dump(self, held: Held) -> bytes:
        """Held, or fewer bytes of hashes."""
        return held.astype(held.dtype.newbyteorder(">"), copy=False).tobytes()

    def load(self, data: bytes) -> Held:
        """Held or hashes. Raises ValueError for neither."""
        if len(data) == self._registers:
            return np.frombuffer(data, np.uint8).copy()
        return np.frombuffer(data, ">u8").astype(np.uint64)

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Add the distinct hashes of each slot."""
        slots, array = valid(slots, column)
        made = hashes(array)
        order = np.lexsort((made, slots))
        slots, made = slots[order], made[order]
        new = (np.diff(slots, prepend=-1) != 0) | (np.diff(made, prepend=made[:1]) != 0)
        slots, made = slots[new], made[new]
        for slot, first, end in runs(slots):
            self._add(slot, made[first:end])

    def merge(self, into: IntArray, source: IntArray) -> None:
        """The union."""
        for slot, other in zip(into.tolist(), source.tolist(), strict=True):
            later = self.objects[other]
            if later.dtype == np.uint64:
                self._add(slot, later)
            else:
                self.objects[slot] = np.maximum(self._dense(self.objects[slot]), later)

    def _add(self, slot: int, made: Held) -> None:
        held = self.objects[slot]
        if held.dtype == np.uint64:
            held = np.union1d(held, made)
            self.objects[slot] = held if len(held) < self._exact else self._dense(held)
        else:
            self._raise(held, made)

    def _dense(self, held: Held) -> Held:
        if held.dtype == np.uint8:
            return held
        registers = np.zeros(self._registers, np.uint8)
        self._raise(registers, held)
        return registers

    def _raise(self, registers: Held, made: Held) -> None:
        """The low bits choose a register; it counts the zeros below the lowest bit of the rest, and one more."""
        index = made & np.uint64(self._registers - 1)
        rest = made >> np.uint64(self._precision)
        lowest = rest & (~rest + np.uint64(1))
        position = np.frexp(lowest.astype(np.float64))[1]  # exact for powers of two
        position[rest == 0] = 64 - self._precision + 1
        np.maximum.at(registers, index.astype(np.int64), position.astype(np.uint8))

    def result(self, slots: IntArray) -> pa.Array:
        """The numbers."""
        return pa.array([self._estimate(self.objects[slot]) for slot in slots.tolist()], pa.int64())

    def _estimate(self, held: Held) -> int:
        if held.dtype == np.uint64:
            return len(held)
        m, top = self._registers, 64 - self._precision
        counts = np.bincount(held, minlength=top + 2).tolist()
        z = m * _tau(1 - counts[top + 1] / m)
        for k in range(top, 0, -1):
            z = 0.5 * (z + counts[k])
        z += m * _sigma(counts[0] / m)
        return round(_ALPHA * m * m / z)


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z, y = z + x * y, y + y
    return z


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x, before, y = math.sqrt(x), z, 0.5 * y
        z -= (1 - x) ** 2 * y
    return z / 3
