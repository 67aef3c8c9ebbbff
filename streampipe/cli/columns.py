"""Text and JSON values as Arrow columns of a schema's types; what does not fit is told apart, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.errors import ConfigError

Column = tuple[pa.Array, list[int]]
"""A column and the rows whose value did not fit; those are null."""

BOOLEANS = {"true": True, "t": True, "1": True, "yes": True, "false": False, "f": False, "0": False, "no": False}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}


def from_text(field: pa.Field, texts: Sequence[str | None]) -> Column:
    """A column out of the cells of a CSV file. Raises ConfigError for types that a cell cannot hold."""
    kind = field.type
    if pa.types.is_string(kind):
        return pa.array(texts, kind), []
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = pl.Series(texts, dtype=pl.String).cast(_polars(kind), strict=False)
        return _compared(numbers.to_arrow().cast(kind), texts)
    if pa.types.is_timestamp(kind):
        return _compared(_timestamps(texts, kind), texts)
    if pa.types.is_nested(kind):
        raise ConfigError(f"field {field.name!r} is {kind}, which a CSV file cannot hold; use JSON lines")
    return _each(texts, kind, _reader(kind))


def from_json(field: pa.Field, values: Sequence[Any]) -> Column:
    """A column out of JSON values. Integers are no booleans, numbers no text: as strict as the schema."""
    kind = field.type
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= _plain_types(kind):
        try:
            return pa.array(values, kind), []
        except (pa.ArrowException, OverflowError):  # a number beyond the type's range
            pass
    elif pa.types.is_timestamp(kind) and kinds <= {str, int}:
        return _compared(_timestamps([None if value is None else str(value) for value in values], kind), values)
    return _each(values, kind, _json_reader(kind))


def _plain_types(kind: pa.DataType) -> set[type]:
    """The JSON types that Arrow takes for this type as they are, without bending them."""
    if pa.types.is_integer(kind):
        return {int}
    if pa.types.is_floating(kind):
        return {int, float}
    return {str} if pa.types.is_string(kind) else {bool} if pa.types.is_boolean(kind) else set()


def _polars(kind: pa.DataType) -> pl.DataType:
    kinds: dict[pa.DataType, pl.DataType] = {
        pa.int32(): pl.Int32(), pa.int64(): pl.Int64(), pa.float32(): pl.Float32(), pa.float64(): pl.Float64()
    }  # fmt: skip
    return kinds[kind]


def _compared(made: pa.Array, given: Sequence[Any]) -> Column:
    """Rows that had a value and have none now did not fit."""
    lost = made.null_count - given.count(None)
    if not lost:
        return made, []
    empty = np.flatnonzero(made.is_null().to_numpy(zero_copy_only=False)).tolist()
    return made, [row for row in empty if given[row] is not None]


def _timestamps(texts: Sequence[str | None], kind: pa.TimestampType) -> pa.Array:
    """ISO-8601, naive ones in UTC, or milliseconds since the epoch."""
    zone = kind.tz
    unit: Any = kind.unit
    series = pl.Series(texts, dtype=pl.String)
    parsed = series.str.to_datetime(time_unit=unit, time_zone=zone, strict=False).to_arrow().cast(kind)
    _, unread = _compared(parsed, texts)
    if not unread:
        return parsed
    # One column, several notations: the rest one by one, each different text once.
    known = {text: _moment(text, kind) for text in {texts[row] for row in unread} if text is not None}
    rest = pa.array([None if text is None else known.get(text) for text in texts], pa.int64())
    return pc.coalesce(parsed, rest.cast(kind))


def _moment(text: str, kind: pa.TimestampType) -> int | None:
    """In units of the type; None for no time at all."""
    per_ms = UNITS_PER_MS[kind.unit]
    if text.removeprefix("-").isdecimal():
        value = int(text) * per_ms
        return value if abs(value) < 2**63 else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // datetime.resolution * per_ms // 1_000


def _each(values: Sequence[Any], kind: pa.DataType, read: Callable[[Any], Any]) -> Column:
    """Value by value, for the types that are rare and the columns that are bad."""
    made: list[Any] = [None] * len(values)
    bad = []
    for row, value in enumerate(values):
        if value is not None:
            try:
                made[row] = pa.scalar(read(value), kind).as_py() if pa.types.is_nested(kind) else read(value)
                pa.scalar(made[row], kind)
            except (ValueError, TypeError, KeyError, OverflowError, InvalidOperation, pa.ArrowException):
                made[row] = None
                bad.append(row)
    return pa.array(made, kind), bad


def _reader(kind: pa.DataType) -> Callable[[Any], Any]:
    """What makes a Python value for Arrow of one cell, or of the JSON text or number that stands for it."""
    if pa.types.is_boolean(kind):
        return lambda text: BOOLEANS[text.lower()]
    if pa.types.is_date(kind):
        return date.fromisoformat
    if pa.types.is_time(kind):
        return time.fromisoformat
    if pa.types.is_decimal(kind):
        return lambda value: Decimal(str(value))
    if pa.types.is_binary(kind):
        return lambda text: text.encode()
    return lambda value: value


def _json_reader(kind: pa.DataType) -> Callable[[Any], Any]:
    plain = _plain_types(kind)
    if not plain:
        return _reader(kind)

    def read(value: Any) -> Any:
        if type(value) not in plain:
            raise TypeError
        return value

    return read
