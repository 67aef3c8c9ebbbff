"""Working on some rows of an Arrow array and putting the results back in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streampipe.records import IntArray


def live_rows(array: pa.Array) -> IntArray:
    """Indexes of the rows that are not null."""
    return np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))


def merge(parts: Sequence[tuple[IntArray, pa.Array]], count: int, kind: pa.DataType) -> pa.Array:
    """One array of `count` rows: row `rows[i]` of a part `(rows, array)` is `array[i]`, all others are null."""
    parts = [part for part in parts if len(part[0])]
    if not parts:
        return pa.nulls(count, kind)
    if len(parts) == 1 and len(parts[0][0]) == count:
        return parts[0][1]
    where = np.full(count, -1, np.int64)
    start = 0
    for rows, array in parts:
        where[rows] = np.arange(start, start + len(array))
        start += len(array)
    return pa.concat_arrays([array for _, array in parts]).take(pa.array(where, mask=where < 0))


def repeat(one: pa.Array, count: int) -> pa.Array:
    """An array of one row, `count` times."""
    return one.take(pa.array(np.zeros(count, np.int64)))


def struct_of(columns: list[pa.Array], kind: pa.StructType, count: int) -> pa.Array:
    """A struct array of `count` rows, also when it has no members."""
    if not columns:
        return pa.array([{}] * count, kind)
    return pa.StructArray.from_arrays(columns, fields=list(kind))
