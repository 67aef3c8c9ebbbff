"""One build of a task: the step of each node, wired to the steps before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.edges import RETRACTED, SinkStep, SourceStep, Times
from streampipe.operators.effects import Effects, Step
from streampipe.operators.functions.function import FunctionStep
from streampipe.operators.functions.stateful_function import StatefulFunctionStep
from streampipe.operators.grouping import check_key_columns
from streampipe.operators.joins.deduplicate import DeduplicateStep
from streampipe.operators.joins.stream_join import StreamJoinStep
from streampipe.operators.running import RunningStep
from streampipe.operators.stateful import StatefulStep
from streampipe.operators.stateless import BranchStep, ExpectStep, FilterStep, MergeStep, SelectStep, WithColumnsStep
from streampipe.operators.tables.table import TableStep
from streampipe.operators.tables.table_join import TableJoinStep
from streampipe.operators.tables.table_lookup import JoinStep
from streampipe.operators.windows.make import windowed_step
from streampipe.runtime.port import SubTopology
from streampipe.runtime.task import Input, TopologyTask
from streampipe.runtime.topic_schemas import TopicSchemas
from streampipe.schemas.codec import parse_record
from streampipe.schemas.evolution import defaults_of
from streampipe.schemas.types import schema_of
from streampipe.state.port import Stores
from streampipe.topology import nodes
from streampipe.topology.graph import SubGraph, sub_graphs
from streampipe.topology.nodes import Node, Topology


class Wiring:
    """One build: the steps of each node, then the task around them."""

    def __init__(
        self,
        topology: Topology,
        schemas: TopicSchemas,
        sleep: Callable[[float], None],
        stores: Stores,
    ) -> None:
        self._topology, self._schemas, self._sleep, self._stores = topology, schemas, sleep, stores
        self._effects = Effects(topology.app_id, topology.dead_letter_topic)
        self._steps: dict[int, Step] = {}
        self._columns: dict[int, pa.Schema] = {}
        self._inputs: dict[str, list[Input]] = {}
        self._tables: list[TableStep] = []

    def task(self) -> TopologyTask:
        """The task of the topology. Raises TopologyError, ConfigError, UnknownSubject, Unavailable."""
        for node in self._topology.nodes:
            step, schema = self._wire(node)
            self._steps[id(node)], self._columns[id(node)] = step, schema
        graphs = sub_graphs(self._topology)
        steps = [[self._steps[id(n)] for n in g.nodes] for g in graphs]
        stateful = [
            (g.depth, [s for s in own if isinstance(s, StatefulStep)]) for g, own in zip(graphs, steps, strict=True)
        ]
        merges = [s for s in self._steps.values() if isinstance(s, MergeStep)]
        parts = [SubTopology(g.streams, g.tables, _before(g)) for g in graphs]
        return TopologyTask(self._effects, self._inputs, parts, stateful, self._tables, merges)

    def _wire(self, node: Node) -> tuple[Step, pa.Schema]:
        """The step that a node's followers hang on, and the columns it gives them."""
        match node:
            case nodes.Source():
                times = Times(node.event_time, node.max_ahead_ms, node.invalid_timestamp)
                source = SourceStep(node.name, self._effects, self._schemas.decoder(node.topic, node.schema), times)
                self._check_key(node, source.schema)
                return self._input(node.topic, source), source.schema
            case nodes.TableSource():
                decoder = self._schemas.decoder(node.topic, node.schema)
                table = TableStep(node, self._effects, decoder, self._stores)
                self._tables.append(table)
                if not node.everywhere:
                    self._input(node.topic, table)
                return table, decoder.arrow
            case nodes.Repartition():
                return self._repartition(node)
            case nodes.TableJoin():
                tables = TableJoinStep(node, self._effects, *map(self._table, node.inputs))
                return tables, tables.schema
            case nodes.StreamJoin():
                left, right = node.inputs
                columns = self._columns[id(left)], self._columns[id(right)]
                join = StreamJoinStep(node, self._effects, *columns, self._stores)
                for before, port in zip((left, right), join.ports, strict=True):
                    self._steps[id(before)].children.append(port)
                return join, join.schema
            case _:
                step, schema = self._inner(node)
                upstream = node.inputs[:1] if isinstance(node, nodes.Join) else node.inputs
                for before in upstream:
                    self._steps[id(before)].children.append(step)
                return step, schema

    def _table(self, node: Node) -> TableStep:
        table = self._steps[id(node)]
        assert isinstance(table, TableStep)
        return table

    def _input(self, topic: str, step: Input) -> Input:
        self._inputs.setdefault(topic, []).append(step)
        return step

    def _repartition(self, node: nodes.Repartition) -> tuple[Step, pa.Schema]:
        schema = self._columns[id(node.inputs[0])]
        self._check_key(node, schema)
        decoder, encoder = self._schemas.internal(node.topic, schema)
        sink = SinkStep(node.name, self._effects, node.topic, encoder, node.new_key)
        self._steps[id(node.inputs[0])].children.append(sink)
        return self._input(node.topic, SourceStep(node.name, self._effects, decoder)), decoder.arrow

    def _inner(self, node: Node) -> tuple[Step, pa.Schema]:
        if isinstance(node, nodes.Sink):
            schema = self._columns[id(node.inputs[0])]
            return self._sink(node, schema), schema
        step = self._stateful(node) if isinstance(node, nodes.Stateful) else self._stateless(node)
        return step, step.schema

    def _stateful(self, node: nodes.Stateful) -> Any:
        schema = self._columns[id(node.inputs[0])]
        match node:
            case nodes.WindowedAggregate():
                return windowed_step(node, self._effects, schema, self._stores)
            case nodes.RunningAggregate():
                return RunningStep(node, self._effects, schema, self._stores)
            case nodes.Deduplicate():
                return DeduplicateStep(node, self._effects, schema, self._stores)
            case nodes.StatefulHandle():
                output, defaults = self._events_of(node)
                return StatefulFunctionStep(node, self._effects, schema, output, defaults, self._sleep, self._stores)
            case _:
                raise AssertionError(f"no step for {node.kind}")

    def _stateless(self, node: Node) -> Any:
        name, effects, schema = node.name, self._effects, self._columns[id(node.inputs[0])]
        match node:
            case nodes.Filter():
                return FilterStep(name, effects, node.predicate, schema)
            case nodes.WithColumns():
                return WithColumnsStep(name, effects, node.columns, schema)
            case nodes.Select():
                return SelectStep(name, effects, node.columns, schema)
            case nodes.Expect():
                return ExpectStep(name, effects, node.rules, schema)
            case nodes.Branch():
                return BranchStep(name, effects, node.predicates, node.arm, schema)
            case nodes.Merge():
                return MergeStep(name, effects, [self._columns[id(n)] for n in node.inputs])
            case nodes.Join():
                return JoinStep(node, effects, schema, self._table(node.table))
            case nodes.Handle():
                output, defaults = self._events_of(node)
                return FunctionStep(name, effects, node.function, node.retry, schema, output, defaults, self._sleep)
            case _:
                raise AssertionError(f"no step for {node.kind}")

    def _events_of(self, node: nodes.Handle | nodes.StatefulHandle) -> tuple[pa.Schema, dict[str, Any]]:
        event = parse_record(self._schemas.of_events(node), f"handler {node.name!r}")
        return schema_of(event), defaults_of(event)

    def _sink(self, node: nodes.Sink, schema: pa.Schema) -> SinkStep:
        if node.table:
            if RETRACTED not in schema.names:
                raise TopologyError(
                    f"sink {node.name!r}: to_table() is for streams with a column {RETRACTED!r}, as joins of tables are"
                )
            schema = schema.remove(schema.get_field_index(RETRACTED))
        encoder = self._schemas.encoder(node.topic, self._schemas.of_sink(node, schema))
        return SinkStep(node.name, self._effects, node.topic, encoder, table=node.table)

    def _check_key(self, node: Node, schema: pa.Schema) -> None:
        check_key_columns(node.name, node.key or (), schema)


def _before(graph: SubGraph) -> tuple[str, ...]:
    """Topics from which records come to the repartition topics of a part, however far away."""
    found: dict[int, Node] = {}
    left = list(graph.nodes)
    while left:
        node = left.pop()
        if id(node) not in found:
            found[id(node)] = node
            left += node.inputs
    read = {n.topic for n in found.values() if isinstance(n, (nodes.Source, nodes.TableSource, nodes.Repartition))}
    return tuple(sorted(read.difference(graph.inputs)))
