"""An Avro schema for columns that have none: internal topics, and outputs without an .avsc."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pyarrow as pa

from streampipe.errors import TopologyError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TIMESTAMP = {"s": "millis", "ms": "millis", "us": "micros", "ns": "nanos"}


def avro_schema_for(name: str, columns: pa.Schema) -> str:
    """Avro schema text of a record of these columns; nullable columns become unions with null, default null.

    Raises TopologyError for a column whose name is no Avro name, or whose type Avro cannot say.
    """
    names = _Names(re.sub(r"[^A-Za-z0-9_]", "_", name) or "Record")
    return orjson.dumps(names.record(names.root, columns)).decode()


class _Names:
    """Gives the records within a record names that are not taken."""

    def __init__(self, root: str) -> None:
        self.root = root if _NAME.match(root) else f"_{root}"
        self._count = 0

    def record(self, name: str, fields: Any) -> dict[str, Any]:
        return {"type": "record", "name": name, "fields": [self._field(field) for field in fields]}

    def _field(self, field: pa.Field) -> dict[str, Any]:
        if not _NAME.match(field.name):
            raise TopologyError(f"column {field.name!r} has no Avro name: letters, digits and _ only; rename it")
        made = self._type(field.name, field.type)
        if not field.nullable or made == "null":
            return {"name": field.name, "type": made}
        return {"name": field.name, "type": ["null", made], "default": None}

    def _item(self, column: str, kind: pa.DataType, *, nullable: bool) -> Any:
        made = self._type(column, kind)
        return ["null", made] if nullable and made != "null" else made

    def _type(self, column: str, kind: pa.DataType) -> Any:
        simple = _simple(kind)
        if simple is not None:
            return simple
        if pa.types.is_struct(kind):
            self._count += 1
            return self.record(f"{self.root}_{column}_{self._count}", list(kind))
        if pa.types.is_map(kind):
            return {"type": "map", "values": self._item(column, kind.item_type, nullable=kind.item_field.nullable)}
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            return {
                "type": "array",
                "items": self._item(column, kind.value_type, nullable=kind.value_field.nullable),
            }
        if pa.types.is_dictionary(kind):
            return self._type(column, kind.value_type)
        raise TopologyError(f"column {column!r} is {kind}, which Avro cannot hold; cast it")


def _simple(kind: pa.DataType) -> Any:
    """Avro's word for an Arrow type without children, None for the others."""
    is_ = pa.types
    if is_.is_null(kind):
        return "null"
    if is_.is_boolean(kind):
        return "boolean"
    if is_.is_integer(kind):
        return "int" if kind.bit_width < 32 or kind == pa.int32() else "long"
    if is_.is_floating(kind):
        return "double" if kind.bit_width == 64 else "float"
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return "string"
    if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind) or is_.is_fixed_size_binary(kind):
        return "bytes"
    if is_.is_decimal(kind):
        return {"type": "bytes", "logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
    if is_.is_date(kind):
        return {"type": "int", "logicalType": "date"}
    if is_.is_timestamp(kind):
        local = "" if kind.tz else "local-"
        return {"type": "long", "logicalType": f"{local}timestamp-{_TIMESTAMP[kind.unit]}"}
    if is_.is_time(kind):
        return {"type": "int", "logicalType": "time-millis"} if kind.unit in ("s", "ms") else _MICROS
    if is_.is_duration(kind):
        return "long"
    return None


_MICROS = {"type": "long", "logicalType": "time-micros"}
