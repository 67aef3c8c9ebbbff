"""Values of a column as plain Python values, for state that NumPy cannot hold, and as bytes.

Plain values are Arrow's own Python values, with times as their integers: Python's calendar ends where Avro's does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa


class Plain:
    """Values of one Arrow type."""

    def __init__(self, kind: pa.DataType) -> None:
        self.type = _decoded(kind)
        self._physical = _physical(self.type)
        self._dtype = _dtype(self._physical)

    def values(self, array: pa.Array) -> list[Any]:
        """The plain values of an array."""
        if array.type != self._physical:
            array = array.cast(self.type).cast(self._physical)
        values: list[Any] = array.to_pylist()
        return values

    def array(self, values: list[Any]) -> pa.Array:
        """Plain values as an array of the column's type."""
        return pa.array(values, self._physical).cast(self.type)

    def dump(self, values: list[Any]) -> bytes:
        """Plain values, none of them null, as bytes: numbers big-endian, strings as JSON, the rest as Arrow's IPC."""
        if self._dtype is not None:
            return np.array(values, self._dtype).tobytes()
        if pa.types.is_string(self._physical):
            return orjson.dumps(values)
        batch = pa.record_batch([pa.array(values, self._physical)], names=[""])
        data: bytes = batch.serialize().to_pybytes()
        return data

    def load(self, data: bytes) -> list[Any]:
        """The values that were dumped. Raises ValueError for bytes that are not right."""
        values: list[Any]
        if self._dtype is not None:
            values = np.frombuffer(data, self._dtype).tolist()
        elif pa.types.is_string(self._physical):
            values = orjson.loads(data)
        else:
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), pa.schema([("", self._physical)]))
            values = batch.column(0).to_pylist()
        return values


def _dtype(kind: pa.DataType) -> Any:
    if pa.types.is_integer(kind) or (pa.types.is_floating(kind)):
        return np.dtype(kind.to_pandas_dtype()).newbyteorder(">")
    return None


def _decoded(kind: pa.DataType) -> pa.DataType:
    """A type with what its dictionaries hold in their place, within lists and structs too: bytes bring none along."""
    is_ = pa.types
    if is_.is_dictionary(kind):
        return kind.value_type
    if is_.is_struct(kind):
        return pa.struct([f.with_type(_decoded(f.type)) for f in kind])
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        item = kind.value_field.with_type(_decoded(kind.value_type))
        if is_.is_fixed_size_list(kind):
            return pa.list_(item, kind.list_size)
        return pa.large_list(item) if is_.is_large_list(kind) else pa.list_(item)
    return kind


def _physical(kind: pa.DataType) -> pa.DataType:
    is_ = pa.types
    if is_.is_temporal(kind):
        return pa.int32() if kind.bit_width == 32 else pa.int64()
    if is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.string()
    if is_.is_struct(kind):
        return pa.struct([f.with_type(_physical(f.type)) for f in kind])
    if is_.is_map(kind):
        return pa.map_(pa.string(), _physical(kind.item_type))
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return pa.list_(_physical(kind.value_type))
    return kind
