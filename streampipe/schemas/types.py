"""Avro types as Arrow types, and Arrow schemas as Avro schemas.

Columns have one form for users (`column_type`: timestamps, decimals, …) and one that mirrors the bytes
(`physical_type`: what both codecs read and write; Avro's logical types are a view of it).

- A union of null and one other type is a nullable column of that type. Any other union is a struct with one member
  for each branch other than null, named by the branch (`int`, `string`, the full name of a named type); at most one
  member is set, none of them (a null struct) for null. Polars has no union type, and this keeps the branch.
- A reference of a recursive record to itself is a binary column with the Avro body of that record.
- An enum is a string, a fixed is binary, a map an Arrow map. Members of structs, lists and maps are nullable for
  Arrow whatever Avro says, as Polars knows no other kind; the encoders check Avro's own rule.
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from streampipe.schemas.model import SchemaError, Type

_PRIMITIVE: dict[str, pa.DataType] = {
    "null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(),
    "double": pa.float64(), "string": pa.string(), "bytes": pa.binary(), "enum": pa.string(), "fixed": pa.binary(),
}  # fmt: skip

_LOGICAL: dict[tuple[str, str], pa.DataType] = {
    ("int", "date"): pa.date32(), ("int", "time-millis"): pa.time32("ms"), ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"), ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"), ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"), ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}  # fmt: skip

_MAX_PRECISION = 76


def schema_of(node: Type) -> pa.Schema:
    """Columns of a record schema. Raises SchemaError when the schema is something else."""
    if node.kind != "record":
        raise SchemaError(f"a record is needed to have columns, this is {node.kind}")
    above = (node,)
    return pa.schema([pa.field(f.name, column_type(f.type, above), nullable=accepts_null(f.type)) for f in node.fields])


def column_type(node: Type, above: tuple[Type, ...] = ()) -> pa.DataType:
    """Arrow type in which users see a value; `above` are the records that enclose it."""
    return _arrow(node, above, logical=True)


def physical_type(node: Type, above: tuple[Type, ...] = ()) -> pa.DataType:
    """Arrow type in which the codecs hand it over: as `column_type`, logical types left out."""
    return _arrow(node, above, logical=False)


def logical_type(node: Type) -> pa.DataType | None:
    """Arrow type of a valid logical type that has one, else None: Avro ignores the others, and so do we."""
    if node.logical == "decimal" and node.kind in ("bytes", "fixed"):
        precision, scale = node.attributes.get("precision"), node.attributes.get("scale", 0)
        if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision <= _MAX_PRECISION:
            return None
        return pa.decimal128(precision, scale) if 0 < precision <= 38 else pa.decimal256(max(precision, 1), scale)
    return _LOGICAL.get((node.kind, node.logical))


def accepts_null(node: Type) -> bool:
    """Whether null is a value of this type."""
    return node.kind == "null" or any(branch.kind == "null" for branch in node.branches)


def is_reference(node: Type, above: tuple[Type, ...]) -> bool:
    """Whether this is a record within itself, which no finite Arrow type can spell out."""
    return node.kind == "record" and node in above


def members(node: Type) -> list[Type]:
    """Branches of a union other than null: the members of its struct."""
    return [branch for branch in node.branches if branch.kind != "null"]


@lru_cache(maxsize=10_000)
def _arrow(node: Type, above: tuple[Type, ...], *, logical: bool) -> pa.DataType:
    if is_reference(node, above):
        return pa.binary()
    if node.kind == "record":
        below = (*above, node)
        return pa.struct([(f.name, _arrow(f.type, below, logical=logical)) for f in node.fields])
    if node.kind == "array":
        return pa.list_(_arrow(node.child, above, logical=logical))
    if node.kind == "map":
        return pa.map_(pa.string(), _arrow(node.child, above, logical=logical))
    if node.kind == "union":
        if node.nullable is not None:
            return _arrow(node.nullable, above, logical=logical)
        return pa.struct([(b.label, _arrow(b, above, logical=logical)) for b in members(node)])
    return (logical_type(node) if logical else None) or _PRIMITIVE[node.kind]
