"""Between the physical form of a column and the one that users see, at the leaves: Avro's logical types."""

from __future__ import annotations

from decimal import Context, Decimal

import pyarrow as pa

from streampipe.schemas.model import Type
from streampipe.schemas.types import logical_type

_EXACT = Context(prec=80)


def lift(array: pa.Array, node: Type) -> pa.Array:
    """A physical leaf in its logical type. Raises ValueError for a decimal of more digits than its precision."""
    kind = logical_type(node)
    if kind is None or array.type == kind:
        return array
    if not pa.types.is_decimal(kind):
        return array.view(kind)
    values = [
        None if unscaled is None else _EXACT.scaleb(Decimal(int.from_bytes(unscaled, "big", signed=True)), -kind.scale)
        for unscaled in array.to_pylist()
    ]
    return pa.array(values, kind)


def lower(array: pa.Array, node: Type) -> pa.Array:
    """A leaf of `column_type` in its physical type."""
    kind = array.type
    if pa.types.is_decimal(kind):
        return pa.array([_unscaled(value, kind.scale, node) for value in array.to_pylist()], pa.binary())
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        return array.view(pa.int64())
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return array.view(pa.int32())
    return array


def _unscaled(value: Decimal | None, scale: int, node: Type) -> bytes | None:
    if value is None:
        return None
    number = int(_EXACT.scaleb(value, scale))
    size = node.size if node.kind == "fixed" else number.bit_length() // 8 + 1
    return number.to_bytes(size, "big", signed=True)
