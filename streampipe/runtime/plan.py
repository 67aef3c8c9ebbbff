"""From a topology to a task: schemas are found and registered, columns are checked, operators are wired.

Everything that can be wrong with a processor is found here, before the first record.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from streampipe.errors import TopologyError, UnknownSubject
from streampipe.operators.edges import SinkStep, SourceStep
from streampipe.operators.effects import Effects, Step
from streampipe.operators.function import FunctionStep
from streampipe.operators.grouping import check_key_columns
from streampipe.operators.signature import returned_dataclass
from streampipe.operators.stateless import BranchStep, ExpectStep, FilterStep, MergeStep, SelectStep, WithColumnsStep
from streampipe.operators.table import JoinStep, TableStep
from streampipe.operators.windowed import WindowedStep
from streampipe.runtime.port import SubTopology
from streampipe.runtime.task import Input, TopologyTask
from streampipe.schemas.catalog import SchemaCatalog
from streampipe.schemas.codec import AvroDecoder, AvroEncoder, parse_record
from streampipe.schemas.evolution import defaults_of
from streampipe.schemas.naming import avro_schema_for
from streampipe.schemas.port import Registry
from streampipe.schemas.types import schema_of
from streampipe.state.memory import MemoryStore
from streampipe.state.port import StateStore
from streampipe.topology import nodes
from streampipe.topology.graph import sub_graphs
from streampipe.topology.nodes import Node, Topology


class TaskBuilder:
    """Builds tasks of one topology. The registry is asked during the first build; later ones need no network.

    `folder` holds .avsc files; `sleep(seconds)` is how a handler's retry waits.
    """

    def __init__(
        self,
        topology: Topology,
        registry: Registry,
        folder: str,
        *,
        sleep: Callable[[float], None],
        make_store: Callable[[], StateStore] = MemoryStore,
    ) -> None:
        self.topology = topology
        self._registry = registry
        self._catalog = SchemaCatalog(registry, folder)
        self._sleep, self._make_store = sleep, make_store
        self._texts: dict[tuple[str, str | None], str | None] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def build(self) -> TopologyTask:
        """A fresh task without state. Raises TopologyError, ConfigError, UnknownSubject, Unavailable."""
        return _Wiring(self).task()

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


class _Wiring:
    """One build: the steps of each node, then the task around them."""

    def __init__(self, builder: TaskBuilder) -> None:
        self._builder = builder
        self._topology = builder.topology
        self._effects = Effects(builder.topology.app_id, builder.topology.dead_letter_topic)
        self._steps: dict[int, Step] = {}
        self._schemas: dict[int, pa.Schema] = {}
        self._inputs: dict[str, list[Input]] = {}
        self._tables: list[TableStep] = []

    def task(self) -> TopologyTask:
        for node in self._topology.nodes:
            step, schema = self._wire(node)
            self._steps[id(node)], self._schemas[id(node)] = step, schema
        graphs = sub_graphs(self._topology)
        stateful = [
            (g.depth, [s for n in g.nodes if isinstance(s := self._steps[id(n)], (WindowedStep, TableStep))])
            for g in graphs
        ]
        merges = [s for s in self._steps.values() if isinstance(s, MergeStep)]
        parts = [SubTopology(g.streams, g.tables) for g in graphs]
        return TopologyTask(self._effects, self._inputs, parts, stateful, self._tables, merges)

    def _wire(self, node: Node) -> tuple[Step, pa.Schema]:
        """The step that a node's followers hang on, and the columns it gives them."""
        match node:
            case nodes.Source():
                source = SourceStep(
                    node.name, self._effects, self._builder.decoder(node.topic, node.schema), node.event_time
                )
                self._check_key(node, source.schema)
                return self._input(node.topic, source), source.schema
            case nodes.TableSource():
                decoder = self._builder.decoder(node.topic, node.schema)
                table = TableStep(node, self._effects, decoder, self._builder._make_store)
                self._tables.append(table)
                if not node.everywhere:
                    self._input(node.topic, table)
                return table, decoder.arrow
            case nodes.Repartition():
                return self._repartition(node)
            case _:
                step, schema = self._inner(node)
                upstream = node.inputs[:1] if isinstance(node, nodes.Join) else node.inputs
                for before in upstream:
                    self._steps[id(before)].children.append(step)
                return step, schema

    def _input(self, topic: str, step: Input) -> Input:
        self._inputs.setdefault(topic, []).append(step)
        return step

    def _repartition(self, node: nodes.Repartition) -> tuple[Step, pa.Schema]:
        schema = self._schemas[id(node.inputs[0])]
        self._check_key(node, schema)
        decoder, encoder = self._builder.internal(node.topic, schema)
        sink = SinkStep(node.name, self._effects, node.topic, encoder, node.key)
        self._steps[id(node.inputs[0])].children.append(sink)
        return self._input(node.topic, SourceStep(node.name, self._effects, decoder, None)), decoder.arrow

    def _inner(self, node: Node) -> tuple[Step, pa.Schema]:
        name, effects, schema = node.name, self._effects, self._schemas[id(node.inputs[0])]
        step: Any
        match node:
            case nodes.Filter():
                step = FilterStep(name, effects, node.predicate, schema)
            case nodes.WithColumns():
                step = WithColumnsStep(name, effects, node.columns, schema)
            case nodes.Select():
                step = SelectStep(name, effects, node.columns, schema)
            case nodes.Expect():
                step = ExpectStep(name, effects, node.rules, schema)
            case nodes.Branch():
                step = BranchStep(name, effects, node.predicates, node.arm, schema)
            case nodes.Merge():
                step = MergeStep(name, effects, [self._schemas[id(n)] for n in node.inputs])
            case nodes.Join():
                table = self._steps[id(node.table)]
                assert isinstance(table, TableStep)
                step = JoinStep(node, effects, schema, table)
            case nodes.WindowedAggregate():
                step = WindowedStep(node, effects, schema, self._builder._make_store)
            case nodes.Handle():
                event = parse_record(self._event_text(node), f"handler {node.name!r}")
                output, defaults, sleep = schema_of(event), defaults_of(event), self._builder._sleep
                step = FunctionStep(name, effects, node.function, node.retry, schema, output, defaults, sleep)
            case nodes.Sink():
                return self._sink(node, schema), schema
            case _:
                raise AssertionError(f"no step for {node.kind}")
        return step, step.schema

    def _sink(self, node: nodes.Sink, schema: pa.Schema) -> SinkStep:
        text = self._sink_text(node, schema)
        _check_fits(node, schema, text)
        return SinkStep(node.name, self._effects, node.topic, self._builder.encoder(node.topic, text))

    def _sink_text(self, node: nodes.Sink, schema: pa.Schema) -> str:
        before, topic = node.inputs[0], node.stands_for or node.topic  # a replay writes what the live processor would
        text = self._builder.text(topic, node.schema)
        if text and (node.schema or self._builder.has_file(topic) or _same_fields(text, schema)):
            return text
        # An older answer of this same inference must not hide a column that was added since.
        return self._event_text(before) if isinstance(before, nodes.Handle) else avro_schema_for(topic, schema)

    def _event_text(self, node: nodes.Handle) -> str:
        text = self._builder.text(node.topic or node.name, node.schema) if node.topic or node.schema else None
        returned = returned_dataclass(node.name, node.function)
        if text and (returned is None or node.schema or self._builder.has_file(node.topic or "")):
            return text
        if returned is not None:
            made = _dataclass_schema(node.name, returned)
            # as for sinks: an older answer of this inference must not hide a field that was added since
            return text if text and _same_fields(text, made) else avro_schema_for(returned.__name__, made)
        raise TopologyError(
            f"handler {node.name!r}: nobody knows the schema of its events; give it schema=..., put "
            f"{node.topic or '<topic>'}.avsc into the schemas folder, or annotate the dataclass it returns"
        )

    def _check_key(self, node: Node, schema: pa.Schema) -> None:
        check_key_columns(node.name, node.key or (), schema)


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
