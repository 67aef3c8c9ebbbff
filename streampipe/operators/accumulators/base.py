"""What an accumulator is: the state of one aggregate for all groups, by slot."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streampipe.operators.frame import Column
from streampipe.records import IntArray

Array = npt.NDArray[Any]


class Accumulator:
    """State of one aggregate, one slot for each group. `dtypes` are its fixed-size arrays, indexed by slot."""

    dtypes: ClassVar[tuple[Any, ...]] = ()
    result_type: pa.DataType
    nullable: ClassVar[bool] = True
    """Whether the result can be null."""

    def __init__(self) -> None:
        self.arrays: list[Array] = [np.zeros(0, dtype) for dtype in self.dtypes]

    @property
    def shape(self) -> str:
        """What tells its state from that of other aggregates."""
        return type(self).__name__

    def grow(self, size: int) -> None:
        """Make room for `size` slots."""
        self.arrays = [np.concatenate([a, np.zeros(size - len(a), a.dtype)]) for a in self.arrays]

    def reset(self, slots: IntArray) -> None:
        """Forget what these slots held."""
        for array in self.arrays:
            array[slots] = 0

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:
        """Add row i of the column, of event time timestamps[i] in ms, to slot slots[i], in the order of the rows."""
        raise NotImplementedError

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Fold slot source[i] into slot into[i], which holds the earlier part, in the order given.

        A slot may be folded into several times, but none may be in both. The sources stay as they are.
        """
        raise NotImplementedError

    def result(self, slots: IntArray) -> pa.Array:
        """The aggregate of these slots."""
        raise NotImplementedError


class ObjectAccumulator(Accumulator):
    """An accumulator whose state has no fixed size: one object for each slot, beside its arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: list[Any] = []

    def empty(self) -> Any:
        """What a slot holds before its first row."""
        raise NotImplementedError

    def dump(self, held: Any) -> bytes:
        """A slot's object as bytes, equal for equal ones."""
        raise NotImplementedError

    def load(self, data: bytes) -> Any:
        """The object that was dumped. Raises ValueError for bytes that are not right."""
        raise NotImplementedError

    def grow(self, size: int) -> None:
        """Make room for `size` slots."""
        super().grow(size)
        self.objects += [self.empty() for _ in range(size - len(self.objects))]

    def reset(self, slots: IntArray) -> None:
        """Forget what these slots held."""
        super().reset(slots)
        for slot in slots.tolist():
            self.objects[slot] = self.empty()


def valid(slots: IntArray, column: Column | None, *others: IntArray) -> tuple[Any, ...]:
    """The slots and values whose value is not null: slots, Arrow array and what else there is for each row."""
    assert column is not None
    array = column.arrow
    if array.null_count:
        rows = array.is_valid().to_numpy(zero_copy_only=False)
        return slots[rows], array.drop_null(), *(other[rows] for other in others)
    return slots, array, *others


def number_type(kind: pa.DataType) -> Any:
    """A NumPy type that holds, orders and adds up all values of a numeric, temporal or Boolean Arrow type."""
    if pa.types.is_floating(kind):
        return np.float64
    return np.uint64 if pa.types.is_uint64(kind) else np.int64


def numbers(array: pa.Array, dtype: Any) -> Array:
    """An Arrow array without nulls in NumPy."""
    return np.asarray(array.cast(pa.from_numpy_dtype(dtype), safe=False).to_numpy(zero_copy_only=False))


def runs(slots: IntArray) -> list[tuple[int, int, int]]:
    """(slot, first row, end row) of each run of equal slots in slots that are sorted."""
    starts = np.flatnonzero(np.diff(slots, prepend=-1))
    return list(zip(slots[starts].tolist(), starts.tolist(), np.append(starts, len(slots))[1:].tolist(), strict=True))
