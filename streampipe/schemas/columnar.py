"""The fast codec: pyruhvro, whole batches between Avro bodies and Arrow. The only module that knows it.

pyruhvro panics on what it does not implement and calls itself experimental, so what it gets to see is decided from
the schema alone, by an allow-list, and only in words of `wire.plain`. Its arrays are brought to the physical form of
`types`; whatever is not exactly right raises, and the row codec has the last word on those records.

Encoding starts threads inside pyruhvro that a fork does not carry over: a process that encoded must not fork children
that encode, they would wait for ever. Start workers by spawn, or before the first record is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from streampipe.schemas import wire
from streampipe.schemas.model import Type
from streampipe.schemas.scan import minimum_bytes
from streampipe.schemas.types import members, physical_type

_PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "string", "enum"})


def supports(node: Type) -> bool:
    """Whether this codec can be trusted with a record schema."""
    return node.kind == "record" and _supported(node, ())


def _supported(node: Type, above: tuple[Type, ...]) -> bool:
    # Null only within a union: a null field of a record inside a map or list is refused when its array is built.
    if node.kind == "record":
        below = (*above, node)
        return node not in above and bool(node.fields) and all(_supported(f.type, below) for f in node.fields)
    if node.kind == "union":
        # One branch is too rare to be worth a path; int beside long would be the same branch twice in `wire.plain`.
        kinds = {branch.kind for branch in node.branches}
        return (
            len(node.branches) > 1
            and not {"int", "long"} <= kinds
            and all(branch.kind == "null" or _supported(branch, above) for branch in node.branches)
        )
    if node.kind == "array":
        return minimum_bytes(node.child) > 0 and _supported(node.child, above)
    if node.kind == "map":
        return _supported(node.child, above)
    return node.kind in _PRIMITIVES


class ColumnarCodec:
    """Bodies of one supported schema to physical arrays and back, all at once."""

    def __init__(self, node: Type) -> None:
        assert supports(node)
        self.type = physical_type(node)
        self._members = list(self.type)
        self._fields = [(field.name, field.type) for field in node.fields]
        self._kinds = [member.type for member in self._members]
        self._read = orjson.dumps(wire.plain(node, wide=True)).decode()
        self._write = orjson.dumps(wire.plain(node)).decode()

    def read(self, bodies: Sequence[bytes]) -> pa.Array:
        """All bodies as one physical array. Raises ValueError (of any kind) if one of them is not right."""
        batch = pyruhvro.deserialize_array(bodies, self._read)
        columns = [
            _physical(column, node, kind)
            for column, (_, node), kind in zip(batch.columns, self._fields, self._kinds, strict=True)
        ]
        return pa.StructArray.from_arrays(columns, fields=self._members)

    def write(self, array: pa.Array) -> pa.BinaryArray:
        """Bodies of a physical array whose nulls are all allowed by the schema. Raises ValueError."""
        columns = [_foreign(array.field(i), node) for i, (_, node) in enumerate(self._fields)]
        batch = pa.RecordBatch.from_arrays(columns, names=[name for name, _ in self._fields])
        return pyruhvro.serialize_record_batch(batch, self._write, 1)[0]


def _physical(array: pa.Array, node: Type, kind: pa.DataType) -> pa.Array:
    """pyruhvro's array in the form of `physical_type`."""
    if node.nullable is not None:
        return _physical(array, node.nullable, kind)
    if node.kind == "union":
        return _struct_of_union(array, node, kind)
    if node.kind not in ("record", "array", "map"):
        if node.kind == "string":
            _refuse_other_than_utf8(array)
        return _narrow(array) if node.kind == "int" else array
    mask = array.is_null() if array.null_count else None
    if node.kind == "record":
        columns = [_physical(array.field(i), f.type, kind[i].type) for i, f in enumerate(node.fields)]
        return pa.StructArray.from_arrays(columns, fields=list(kind), mask=mask)
    if node.kind == "array":
        values = _physical(array.values, node.child, kind.value_type)
        return pa.ListArray.from_arrays(array.offsets, values, type=kind, mask=mask)
    _refuse_other_than_utf8(array.keys)
    _refuse_repeated_keys(array)
    items = _physical(array.items, node.child, kind.item_type)
    return pa.MapArray.from_arrays(array.offsets, array.keys, items, type=kind, mask=mask)


def _narrow(array: pa.Array) -> pa.Array:
    """An int read as a long. Raises ValueError for one beyond 32 bits. (Arrow's checked cast takes twice as long.)"""
    validity, data = array.buffers()
    wide = np.frombuffer(data, np.int64, len(array), array.offset * 8) if data else np.empty(0, np.int64)
    cut = wide.astype(np.int32)
    if not (cut == wide).all():
        raise ValueError("an int is longer than 32 bits")
    if array.offset:
        return array.cast(pa.int32())
    return pa.Array.from_buffers(pa.int32(), len(array), [validity, pa.py_buffer(cut)], array.null_count)


def _refuse_other_than_utf8(array: pa.Array) -> None:
    """Raise ValueError for text that is not UTF-8: pyruhvro does not look, and everybody after it relies on it."""
    data = array.buffers()[2]
    if data is not None and data.size and np.frombuffer(data, np.uint8).max() >= 128:  # else ASCII, twenty times faster
        array.validate(full=True)


def _refuse_repeated_keys(array: pa.Array) -> None:
    """A map that says a key twice keeps the last value; that is left to the row codec."""
    counts = np.diff(array.offsets.to_numpy())
    if counts.size == 0 or counts.max() < 2:
        return
    entries = pa.table({"row": np.repeat(np.arange(counts.size), counts), "key": array.keys})
    if entries.group_by(["row", "key"]).aggregate([]).num_rows != entries.num_rows:
        raise ValueError("a map has a key twice")


def _struct_of_union(array: pa.Array, node: Type, kind: pa.DataType) -> pa.Array:
    codes = array.type_codes
    columns = []
    for i, branch in enumerate(node.branches):
        if branch.kind != "null":
            column = _physical(array.field(i), branch, kind.field(branch.label).type)
            columns.append(pc.if_else(pc.equal(codes, i), column, pa.scalar(None, column.type)))
    null = next((i for i, branch in enumerate(node.branches) if branch.kind == "null"), None)
    mask = pc.equal(codes, null) if null is not None else None
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=mask)


def _foreign(array: pa.Array, node: Type) -> pa.Array:
    """A physical array in the form that pyruhvro wants: unions as sparse unions, everything else as it is."""
    if node.nullable is not None:
        return _foreign(array, node.nullable)
    if node.kind == "union":
        return _union_of_struct(array, node)
    if node.kind not in ("record", "array", "map"):
        return array
    mask = array.is_null() if array.null_count else None
    if node.kind == "record":
        columns = [_foreign(array.field(i), f.type) for i, f in enumerate(node.fields)]
        return pa.StructArray.from_arrays(columns, names=[f.name for f in node.fields], mask=mask)
    if node.kind == "array":
        return pa.ListArray.from_arrays(array.offsets, _foreign(array.values, node.child), mask=mask)
    return pa.MapArray.from_arrays(array.offsets, array.keys, _foreign(array.items, node.child), mask=mask)


def _union_of_struct(array: pa.Array, node: Type) -> pa.Array:
    codes = pa.array([0] * len(array), pa.int8())
    columns = []
    flat = dict(zip((b.label for b in members(node)), array.flatten(), strict=True))
    for i, branch in enumerate(node.branches):
        column = pa.nulls(len(array)) if branch.kind == "null" else _foreign(flat[branch.label], branch)
        columns.append(column)
        if branch.kind != "null":
            codes = pc.if_else(flat[branch.label].is_valid(), pa.scalar(i, pa.int8()), codes)
        else:
            codes = pc.if_else(array.is_null(), pa.scalar(i, pa.int8()), codes)
    return pa.UnionArray.from_sparse(codes, columns, [b.label for b in node.branches])
