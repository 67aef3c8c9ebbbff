"""Which Avro schema the values of each topic have, and the codecs for them."""

from __future__ import annotations

import dataclasses
import json
import typing
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from streampipe.errors import TopologyError, UnknownSubject
from streampipe.operators.functions.signature import returned_dataclass
from streampipe.schemas.catalog import SchemaCatalog
from streampipe.schemas.codec import AvroDecoder, AvroEncoder, parse_record
from streampipe.schemas.naming import avro_schema_for
from streampipe.schemas.port import Registry
from streampipe.schemas.types import schema_of
from streampipe.topology import nodes


class TopicSchemas:
    """Schemas from files, the registry, or made of columns. Each is looked up and registered once."""

    def __init__(self, registry: Registry, folder: str) -> None:
        self._registry = registry
        self._catalog = SchemaCatalog(registry, folder)
        self._texts: dict[tuple[str, str | None], str | None] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def text(self, topic: str, explicit: str | None) -> str | None:
        """Schema of a topic's values, None when nobody knows one."""
        if (topic, explicit) not in self._texts:
            try:
                self._texts[topic, explicit] = self._catalog.for_topic(topic, explicit)
            except UnknownSubject:
                self._texts[topic, explicit] = None
        return self._texts[topic, explicit]

    def has_file(self, topic: str) -> bool:
        """Whether the schemas folder says what a topic's values are."""
        return (self._catalog.folder / f"{topic}.avsc").is_file()

    def decoder(self, topic: str, explicit: str | None) -> AvroDecoder:
        """Decoder to a source's reader schema. Raises UnknownSubject."""
        text = self.text(topic, explicit)
        if text is None:
            raise UnknownSubject(f"{topic}-value")
        return AvroDecoder(self._registry, text)

    def encoder(self, topic: str, text: str) -> AvroEncoder:
        """Encoder of a schema, registered under the topic's subject."""
        if (topic, text) not in self._ids:
            self._ids[topic, text] = self._catalog.register(topic, text)
        return AvroEncoder(text, self._ids[topic, text])

    def internal(self, topic: str, schema: pa.Schema) -> tuple[AvroDecoder, AvroEncoder]:
        """Both ends of a topic of our own, whose schema is made of its columns."""
        text = avro_schema_for(topic, schema)
        return AvroDecoder(self._registry, text), self.encoder(topic, text)

    def of_sink(self, node: nodes.Sink, schema: pa.Schema) -> str:
        """Schema of what a sink writes, given its columns: a file's, the registry's, else made of them.

        Raises TopologyError when the columns cannot become such events.
        """
        text = self._of_sink(node, schema)
        _check_fits(node, schema, text)
        return text

    def _of_sink(self, node: nodes.Sink, schema: pa.Schema) -> str:
        before, topic = node.inputs[0], node.stands_for or node.topic  # a replay writes what the live processor would
        text = self.text(topic, node.schema)
        if text and (node.schema or self.has_file(topic) or _same_fields(text, schema)):
            return text
        # An older answer of this same inference must not hide a column that was added since.
        # A table is written without the column that says what is taken back, so it is not what a function returns.
        if isinstance(before, nodes.Handle | nodes.StatefulHandle) and not node.table:
            return self.of_events(before)
        return avro_schema_for(topic, schema)

    def of_events(self, node: nodes.Handle | nodes.StatefulHandle) -> str:
        """Schema of the events that a function returns. Raises TopologyError when nobody knows it."""
        text = self.text(node.topic or node.name, node.schema) if node.topic or node.schema else None
        returned = _returned(node)
        if text and (returned is None or node.schema or self.has_file(node.topic or "")):
            return text
        if returned is not None:
            made = _dataclass_schema(node.name, returned)
            # as for sinks: an older answer of this inference must not hide a field that was added since
            return text if text and _same_fields(text, made) else avro_schema_for(returned.__name__, made)
        raise TopologyError(
            f"handler {node.name!r}: nobody knows the schema of its events; give it schema=..., put "
            f"{node.topic or '<topic>'}.avsc into the schemas folder, or annotate the dataclass it returns"
        )


def _returned(node: nodes.Handle | nodes.StatefulHandle) -> type | None:
    """The dataclass that a handler's functions return. Raises TopologyError when they return different ones."""
    on_timer = node.on_timer if isinstance(node, nodes.StatefulHandle) else None
    returned = {kind for f in (node.function, on_timer) if f and (kind := returned_dataclass(node.name, f))}
    if len(returned) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in returned))
        raise TopologyError(f"handler {node.name!r} and its on_timer return different events, {names}")
    return returned.pop() if returned else None


def _same_fields(text: str, schema: pa.Schema) -> bool:
    return {f["name"] for f in json.loads(text)["fields"]} == set(schema.names)


def _check_fits(node: nodes.Sink, schema: pa.Schema, text: str) -> None:
    """The columns can become events of the sink's schema, as far as types tell."""
    defaults = {f["name"] for f in json.loads(text)["fields"] if "default" in f}
    for field in schema_of(parse_record(text, f"schema of topic {node.topic!r}")):
        if field.name not in schema.names:
            if field.name in defaults:
                continue
            raise TopologyError(
                f"sink {node.name!r}: the schema of topic {node.topic!r} has field {field.name!r}, "
                f"which is not among the columns: {', '.join(schema.names)}"
            )
        given = schema.field(field.name).type
        if not _may_become(given, field.type):
            raise TopologyError(
                f"sink {node.name!r}: column {field.name!r} is {given}, but topic {node.topic!r} has {field.type}; "
                f"cast it, or change the schema"
            )


def _may_become(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column may be written as this type, its values meaning the same; single values may still not fit."""
    if pa.types.is_null(given) or pa.types.is_nested(given) or given == wanted:
        return True
    if pa.types.is_integer(given):
        return bool(pa.types.is_integer(wanted) or pa.types.is_floating(wanted) or pa.types.is_decimal(wanted))
    if pa.types.is_duration(given):
        return bool(wanted == pa.int64())
    kinds = (pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal, pa.types.is_string, pa.types.is_binary)
    return any(is_kind(given) and is_kind(wanted) for is_kind in kinds)


_ARROW: dict[Any, pa.DataType] = {
    bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary(),
    datetime: pa.timestamp("ms", tz="UTC"), date: pa.date32(),
}  # fmt: skip


def _dataclass_schema(handler: str, kind: type) -> pa.Schema:
    fields = []
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        options = [a for a in typing.get_args(hint) if a is not type(None)] or [hint]
        if len(options) != 1 or options[0] not in _ARROW:
            raise TopologyError(
                f"handler {handler!r}: no Avro type for {kind.__name__}.{field.name}: {hint}; give it schema=..."
            )
        fields.append(pa.field(field.name, _ARROW[options[0]], nullable=options[0] is not hint))
    return pa.schema(fields)
