"""Any Arrow column as the physical column of an Avro type, with everything checked that a codec would trip over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.errors import TopologyError
from streampipe.schemas.avro import row_codec
from streampipe.schemas.defaults import default_of
from streampipe.schemas.logical import lower
from streampipe.schemas.model import Field, SchemaError, Type
from streampipe.schemas.selection import live_rows, merge, repeat, struct_of
from streampipe.schemas.types import accepts_null, column_type, is_reference, members, physical_type

Above = tuple[Type, ...]


class UnfitValue(ValueError):
    """A value does not fit the schema. The message names the column, not the value."""


def record_of(columns: dict[str, pa.Array], node: Type, count: int, above: Above = (), path: str = "") -> pa.Array:
    """Physical struct array of a record out of its columns, `count` rows.

    Raises UnfitValue, or TopologyError for a missing column without default.
    """
    below = (*above, node)
    made = []
    for field in node.fields:
        column = columns.get(field.name)
        if column is None:
            made.append(_default(field, below, count, path + field.name))
        else:
            made.append(to_physical(column, field.type, below, path + field.name))
    return struct_of(made, physical_type(node, above), count)


def to_physical(array: pa.Array, node: Type, above: Above, path: str) -> pa.Array:
    """Physical array of a column. Raises UnfitValue, naming `path`."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = physical_type(node, above)
    if node.kind == "null":
        if array.null_count < len(array):
            raise UnfitValue(f"{path} is not null")
        return pa.nulls(len(array))
    if array.null_count and not accepts_null(node):
        raise UnfitValue(f"{path} is null, which its type {node.label} does not allow")
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    inner = node.nullable or node
    if _is_leaf(inner, above):
        return _leaf(array, inner, above, path)
    # Rows that are null have children of no meaning: only the others are looked at.
    rows = live_rows(array) if array.null_count or array.offset else np.arange(len(array))
    live = array.take(pa.array(rows)) if array.null_count or array.offset else array
    return merge([(rows, _nested(live, inner, above, path))], len(array), kind)


def _is_leaf(node: Type, above: Above) -> bool:
    return node.kind not in ("record", "array", "map", "union") or is_reference(node, above)


def _default(field: Field, above: Above, count: int, path: str) -> pa.Array:
    try:
        value = default_of(field, above)
    except SchemaError as e:
        raise TopologyError(f"column {path} is missing: {e}; add the column or a default") from None
    return repeat(pa.array([value], physical_type(field.type, above)), count)


def _leaf(array: pa.Array, node: Type, above: Above, path: str) -> pa.Array:
    kind = column_type(node, above)
    try:
        made = lower(_cast(array, kind), node) if array.type != kind else lower(array, node)
    except (ValueError, OverflowError, NotImplementedError):  # Arrow's errors are ValueErrors and quote the value
        raise UnfitValue(f"{path} ({array.type}) does not fit its type {node.label}") from None
    if node.kind == "enum" and not _all(pc.is_in(made.drop_null(), pa.array(node.symbols, pa.string()))):
        raise UnfitValue(f"{path} is no symbol of {node.name}")
    if node.kind == "fixed" and not _all(pc.equal(pc.binary_length(made), node.size)):
        raise UnfitValue(f"{path} is not of the {node.size} bytes of {node.name}")
    if is_reference(node, above):
        codec = row_codec(node)
        for body in made.to_pylist():
            if body is not None:
                codec.check(body)
    return made


def _all(holds: pa.Array) -> bool:
    return bool(pc.all(holds, min_count=0).as_py())


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(array.type) and pa.types.is_floating(kind):
        return array.cast(kind, safe=False)
    if pa.types.is_timestamp(array.type) and pa.types.is_timestamp(kind):
        # A naive time is one in UTC; Arrow would ask in which zone it is.
        return array.cast(pa.timestamp(array.type.unit, kind.tz)).cast(kind)
    return array.cast(kind)


def _nested(array: pa.Array, node: Type, above: Above, path: str) -> pa.Array:
    if node.kind == "record":
        return record_of(_columns(array, path), node, len(array), above, f"{path}.")
    if node.kind == "union":
        return _union(array, node, above, path)
    if pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    if not (pa.types.is_list(array.type) or pa.types.is_map(array.type)):
        raise UnfitValue(f"{path} ({array.type}) does not fit its type {node.label}")
    offsets = np.asarray(array.offsets)
    inside = slice(int(offsets[0]), int(offsets[-1]))
    starts = pa.array(offsets - offsets[0], pa.int32())
    if node.kind == "array":
        items = to_physical(array.values[inside], node.child, above, f"{path}[]")
        return pa.ListArray.from_arrays(starts, items, type=physical_type(node, above))
    keys, items = _entries(array, inside, path)
    if keys.null_count:
        raise UnfitValue(f"{path} has a null key")
    made = to_physical(items, node.child, above, f"{path}[]")
    return pa.MapArray.from_arrays(starts, keys.cast(pa.string()), made, type=physical_type(node, above))


def _entries(array: pa.Array, inside: slice, path: str) -> tuple[pa.Array, pa.Array]:
    if pa.types.is_map(array.type):
        return array.keys[inside], array.items[inside]
    pairs = list(_columns(array.values[inside], path).values())  # Polars' older form: a list of key and value
    if len(pairs) != 2:
        raise UnfitValue(f"{path} ({array.type}) does not fit its type map")
    return pairs[0], pairs[1]


def _columns(array: pa.Array, path: str) -> dict[str, pa.Array]:
    if not pa.types.is_struct(array.type):
        raise UnfitValue(f"{path} is {array.type}, where a struct is needed")
    return dict(zip((f.name for f in array.type), array.flatten(), strict=True))


def _union(array: pa.Array, node: Type, above: Above, path: str) -> pa.Array:
    """A struct with one member set in each row, as `types` says."""
    given: dict[str, Any] = _columns(array, path)
    kind = physical_type(node, above)
    made = []
    set_members = np.zeros(len(array), np.int64)
    for branch in members(node):
        column = given.get(branch.label)
        if column is None:
            column = pa.nulls(len(array))
        rows = live_rows(column)
        set_members[rows] += 1
        live = to_physical(column.take(pa.array(rows)), branch, above, f"{path}.{branch.label}")
        made.append(merge([(rows, live)], len(array), kind.field(branch.label).type))
    if (set_members > 1).any():
        raise UnfitValue(f"{path} has several members of its union set")
    if (set_members == 0).any() and not accepts_null(node):
        raise UnfitValue(f"{path} has no member of its union set")
    if not made:
        return pa.nulls(len(array), kind)
    return pa.StructArray.from_arrays(made, fields=list(kind), mask=pa.array(set_members == 0))
