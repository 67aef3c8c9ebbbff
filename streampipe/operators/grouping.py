"""Finding the distinct keys of a batch without touching rows one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streampipe.operators.frame import Column
from streampipe.records import IntArray
from streampipe.schemas.keys import encode_keys


@dataclass(frozen=True, slots=True)
class Groups:
    """Distinct combinations: `first[g]` is the first row of group g, `of[i]` the group of row i."""

    first: IntArray
    of: IntArray

    def __len__(self) -> int:
        return len(self.first)


def codes(column: Column) -> tuple[IntArray, int]:
    """A small integer for each row, equal where values are (null is a value of its own), and how many there are."""
    encoded = column.arrow.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def group(columns: Sequence[Column], *numbers: IntArray) -> Groups:
    """Group rows by columns and by integer columns (`numbers`: partitions, window starts)."""
    code: IntArray | None = None
    for values, size in (*map(codes, columns), *map(_span, numbers)):
        # values < size, so no two combinations share a code; compacting when it could outgrow 63 bits
        if code is None:
            code = values
        else:
            if int(code.max(initial=0)) > (2**62) // max(size, 1):
                code = np.unique(code, return_inverse=True)[1]
            code = code * size + values
    assert code is not None
    _, first, of = np.unique(code, return_index=True, return_inverse=True)
    return Groups(first, of)


def _span(numbers: IntArray) -> tuple[IntArray, int]:
    low = int(numbers.min(initial=0)) if len(numbers) == 0 else int(numbers.min())
    high = low if len(numbers) == 0 else int(numbers.max())
    if high - low < 2**40:
        return numbers - low, high - low + 1
    distinct, codes_ = np.unique(numbers, return_inverse=True)
    return codes_, len(distinct)


def key_bytes(columns: Mapping[str, Column]) -> list[bytes | None]:
    """Record key of each row, made of these named columns by the key codec; once for each distinct key."""
    groups = group([*columns.values()])
    distinct = encode_keys([c.take(groups.first).polars.alias(name) for name, c in columns.items()])
    return [distinct[g] for g in groups.of.tolist()]


def null_rows(columns: Sequence[Column]) -> np.ndarray:
    """Which rows have a null in any of these columns."""
    mask = np.zeros(len(columns[0].arrow), np.bool_)
    for column in columns:
        if column.arrow.null_count:
            mask |= column.arrow.is_null().to_numpy(zero_copy_only=False)
    return mask


def as_physical(array: pa.Array) -> pa.Array:
    """Temporal values as their integers, so that they can go through JSON and NumPy unharmed."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind) or pa.types.is_date64(kind):
        return array.cast(pa.int64())
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return array.cast(pa.int32())
    return array
