"""Finding the distinct keys of a batch without touching rows one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.errors import TopologyError
from streampipe.operators.frame import Column, Mask
from streampipe.records import IntArray
from streampipe.schemas.keys import encode_keys
from streampipe.state.codec import foreign_key

_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Groups:
    """Distinct combinations: `first[g]` is the first row of group g, `of[i]` the group of row i."""

    first: IntArray
    of: IntArray

    def __len__(self) -> int:
        return len(self.first)


def codes(column: Column) -> tuple[IntArray, int]:
    """A small integer for each row, equal where values are (null is a value of its own), and how many there are."""
    array = column.arrow
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())
    encoded = array.dictionary_encode(null_encoding="encode")
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
    """Record key of each row, made of these named columns by the key codec; once for each distinct key if that pays."""
    kinds = [column.arrow.type for column in columns.values()]
    if len(kinds) == 1 and (pa.types.is_string(kinds[0]) or pa.types.is_integer(kinds[0])):
        return encode_keys([column.polars for column in columns.values()])
    groups = group([*columns.values()])
    distinct = distinct_keys(columns, groups)
    return [distinct[g] for g in groups.of.tolist()]


def distinct_keys(columns: Mapping[str, Column], groups: Groups) -> list[bytes | None]:
    """Record key of each group; times that ISO 8601 cannot say count as null."""
    return encode_keys([_sayable(c.take(groups.first).arrow).alias(name) for name, c in columns.items()])


def _sayable(array: pa.Array) -> pl.Series:
    beyond = _beyond_calendar(array)
    if beyond.any():
        array = pc.if_else(pa.array(beyond), pa.scalar(None, array.type), array)
    return Column(arrow=array).polars


def null_rows(columns: Sequence[Column]) -> Mask:
    """Which rows have a null in any of these columns, or a time that ISO 8601 cannot say."""
    mask = np.zeros(len(columns[0].arrow), np.bool_)
    for column in columns:
        if column.arrow.null_count:
            mask |= column.arrow.is_null().to_numpy(zero_copy_only=False)
        mask |= _beyond_calendar(column.arrow)
    return mask


_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800  # seconds since the epoch
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _beyond_calendar(array: pa.Array) -> Mask:
    """Dates and timestamps outside the years 1 to 9999: Avro holds them, Polars panics when asked for their text."""
    kind = array.type
    if pa.types.is_date32(kind):
        low, high = _YEAR_1 // 86_400, _YEAR_10000 // 86_400
    elif pa.types.is_timestamp(kind):
        low, high = _YEAR_1 * _PER_SECOND[kind.unit], _YEAR_10000 * _PER_SECOND[kind.unit]
    else:
        return np.zeros(len(array), np.bool_)
    times = as_physical(array).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    # 64 bits of nanoseconds end long before the year 9999
    return np.asarray((times < max(low, _INT64.min)) | (times > min(high - 1, _INT64.max)))


def check_key_columns(node: str, columns: Sequence[str], schema: pa.Schema) -> None:
    """Raise TopologyError unless these columns are there and can be part of a record key."""
    for column in columns:
        if column not in schema.names:
            raise TopologyError(f"node {node!r}: key column {column!r} is not among {', '.join(schema.names)}")
        kind = schema.field(column).type
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if pa.types.is_nested(kind) or pa.types.is_decimal256(kind) or (binary and len(columns) > 1):
            raise TopologyError(
                f"node {node!r}: key column {column!r} is {kind}, which cannot be part of a key; cast it"
            )


def check_state_key(node: str, columns: Sequence[str], types: Sequence[pa.DataType]) -> None:
    """Raise TopologyError unless columns of these types can be a key of state."""
    for column, kind in zip(columns, types, strict=True):
        if not (
            pa.types.is_string(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_temporal(kind)
        ):
            raise TopologyError(
                f"node {node!r}: key column {column!r} is {kind}; a key of state must be a string, an "
                f"integer, a Boolean or a time"
            )


_ESCAPED = r'[\x00-\x1f"\\]'
"""What JSON writes otherwise than as it is."""
_FEW = 200
"""So many keys are sooner done one by one than in columns."""


def state_keys(columns: Sequence[Column], groups: Groups) -> list[bytes]:
    """The key of each group as a compact JSON array, times as integers."""
    values = [pl.Series(pl.from_arrow(as_physical(column.take(groups.first).arrow))) for column in columns]
    texts = list(map(_json, values)) if len(groups) > _FEW else [None]
    if any(text is None for text in texts):
        # copies, since what orjson gives keeps the four kilobytes that it was written into
        return [bytes(memoryview(orjson.dumps(key))) for key in zip(*(v.to_list() for v in values), strict=True)]
    parts = [part for text in texts for part in (pl.lit(","), text)][1:]
    keys = pl.select(pl.concat_str(pl.lit("["), *parts, pl.lit("]"))).to_series()
    return keys.cast(pl.Binary).to_list()


def _json(values: pl.Series) -> pl.Series | None:
    """Values as JSON; None where that must be done one by one."""
    if values.dtype == pl.String:
        return None if values.str.contains(_ESCAPED).any() else pl.select(pl.format('"{}"', values)).to_series()
    return values.cast(pl.String) if values.dtype.is_integer() else None


def columns_of_keys(keys: Sequence[bytes], kinds: Sequence[pa.DataType]) -> list[pa.Array]:
    """And back: a column for each part of these keys. Raises StateCorrupted."""
    types = [as_physical(pa.array([], kind)).type for kind in kinds]
    try:
        values = [_of_json(keys, types[0])] if len(kinds) == 1 and len(keys) > _FEW else _parts(keys, types)
    except (ValueError, TypeError, pa.ArrowException, pl.exceptions.PolarsError):
        raise foreign_key() from None
    return [array.cast(kind) for array, kind in zip(values, kinds, strict=True)]


def _of_json(keys: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """The only part of each key."""
    if pa.types.is_string(kind) or pa.types.is_integer(kind):
        text = pl.Series(keys, dtype=pl.Binary).cast(pl.String)
        if pa.types.is_integer(kind):
            return text.str.slice(1).str.head(-1).to_arrow().cast(kind)
        if not text.str.contains("\\", literal=True).any():
            return text.str.slice(2).str.head(-2).to_arrow().cast(kind)
    return _parts(keys, [kind])[0]


def _parts(keys: Sequence[bytes], kinds: Sequence[pa.DataType]) -> list[pa.Array]:
    rows = orjson.loads(b"[" + b",".join(keys) + b"]")
    if len(rows) != len(keys):
        raise ValueError("one of the keys is not one value")
    return [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]


def as_physical(array: pa.Array) -> pa.Array:
    """Temporal values as their integers, so that they can go through JSON and NumPy unharmed."""
    kind = array.type
    if pa.types.is_temporal(kind) and kind.bit_width == 64:
        return array.cast(pa.int64())
    if pa.types.is_temporal(kind):
        return array.cast(pa.int32())
    return array
