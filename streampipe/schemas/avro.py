"""The reference codec: fastavro, record by record, for everything that the columnar codec does not support.

It reads and writes whole records of one schema in their physical form (see `types`). Making another reader schema
of them is `evolution`'s work, on columns, for both codecs alike; so fastavro's own resolution is not used, nor what
it gets wrong (bytes defaults, int to float, records that end inside a skipped field).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import fastavro
import pyarrow as pa

from streampipe.schemas import wire
from streampipe.schemas.model import SchemaError, Type, parse_tree
from streampipe.schemas.scan import scanner
from streampipe.schemas.types import is_reference, physical_type

Convert = Callable[[Any], Any] | None
"""Between a value of fastavro and one of Arrow; None where they are the same."""


@lru_cache(maxsize=1_000)
def parse(text: str) -> Type:
    """Parse and check a schema. Raises SchemaError, also for one that is unsafe to use (see `model`)."""
    node = parse_tree(text)
    try:
        fastavro.parse_schema(wire.plain(node))
    except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, ValueError) as e:
        raise SchemaError(" ".join(str(e).split())[:200]) from None
    return node


class RowCodec:
    """Bodies of one schema to physical values and back, one by one."""

    def __init__(self, node: Type) -> None:
        self.type = physical_type(node)
        self._schema = fastavro.parse_schema(wire.wrapped(node))
        self.check = scanner(node)
        """Raises MalformedRecord unless a body starts with a whole value."""
        self._load = _Loader().of(node, ())
        self._dump = _Dumper().of(node, ())

    def read(self, body: bytes) -> Any:
        """One value as Arrow takes it. Raises MalformedRecord."""
        self.check(body)
        value = fastavro.schemaless_reader(io.BytesIO(body), self._schema, None)
        return self._load(value) if self._load else value

    def array(self, values: list[Any]) -> pa.Array:
        """What `read` returned, as one physical array."""
        return pa.array(values, self.type)

    def write(self, array: pa.Array) -> list[bytes]:
        """Bodies of a physical array. Raises ValueError, TypeError and the like for what does not fit."""
        dump, schema = self._dump, self._schema
        bodies = []
        for value in array.to_pylist():
            out = io.BytesIO()
            fastavro.schemaless_writer(out, schema, dump(value) if dump else value)
            bodies.append(out.getvalue())
        return bodies


@lru_cache(maxsize=1_000)
def row_codec(node: Type) -> RowCodec:
    """The codec of a node, made once."""
    return RowCodec(node)


class _Loader:
    """Compiles fastavro's values to Arrow's."""

    def of(self, node: Type, above: tuple[Type, ...]) -> Convert:
        if is_reference(node, above):
            return lambda value: _write_one(node, value)
        if node.kind == "record":
            return _record({f.name: self.of(f.type, (*above, node)) for f in node.fields})
        if node.kind == "array":
            return _each(self.of(node.child, above))
        if node.kind == "map":
            item = self.of(node.child, above)
            return lambda value: [(k, item(v)) for k, v in value.items()] if item else list(value.items())
        if node.kind == "union":
            if node.nullable is not None:
                return _optional(self.of(node.nullable, above))
            return _optional(_record({b.label: self.of(b, above) for b in node.branches}))
        return None


class _Dumper:
    """Compiles Arrow's values, as `to_pylist` gives them, to fastavro's."""

    def of(self, node: Type, above: tuple[Type, ...]) -> Convert:
        if is_reference(node, above):
            return lambda value: _read_one(node, value)
        if node.kind == "record":
            return _record({f.name: self.of(f.type, (*above, node)) for f in node.fields})
        if node.kind == "array":
            return _each(self.of(node.child, above))
        if node.kind == "map":
            item = self.of(node.child, above)
            return lambda value: {k: item(v) for k, v in value} if item else dict(value)
        if node.kind == "union":
            if node.nullable is not None:
                return _optional(self.of(node.nullable, above))
            branches = [(b.label, wire.wrapper_name(node, b), self.of(b, above)) for b in node.branches]
            return lambda value: _tagged(branches, value)
        return None


def _record(fields: dict[str, Convert]) -> Convert:
    changed = [(name, convert) for name, convert in fields.items() if convert]
    if not changed:
        return None

    def convert_record(value: dict[str, Any]) -> dict[str, Any]:
        for name, convert in changed:
            if name in value:  # a branch of a union has only its own member
                value[name] = convert(value[name])
        return value

    return convert_record


def _each(item: Convert) -> Convert:
    return (lambda value: [item(v) for v in value]) if item else None


def _optional(convert: Convert) -> Convert:
    return (lambda value: None if value is None else convert(value)) if convert else None


def _tagged(branches: list[tuple[str, str, Convert]], value: dict[str, Any] | None) -> Any:
    if value is not None:
        for label, name, convert in branches:
            member = value.get(label)
            if member is not None:
                return (name, {label: convert(member) if convert else member})
    return None


@lru_cache(maxsize=1_000)
def _wire_of(node: Type) -> Any:
    return fastavro.parse_schema(wire.wrapped(node))


def _write_one(node: Type, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _wire_of(node), value)
    return out.getvalue()


def _read_one(node: Type, body: bytes) -> Any:
    row_codec(node).check(body)
    return fastavro.schemaless_reader(io.BytesIO(body), _wire_of(node), None)


def read_all(codec: RowCodec, bodies: Sequence[bytes]) -> pa.Array:
    """All bodies as one physical array. Raises MalformedRecord if one is not right."""
    return codec.array([codec.read(body) for body in bodies])
