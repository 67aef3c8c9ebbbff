"""Decoder and Encoder: framed Avro values to columns of one schema and back, bad rows set apart.

A batch goes through the columnar codec where the writer's schema allows it. One bad record makes that codec refuse
the batch, so it is halved until the bad ones are alone; the row codec then says what is wrong with each of them, or
reads what the columnar codec could not. Which codec reads a record depends on the record alone, never on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.errors import ConfigError, UnknownSchema
from streampipe.records import IntArray
from streampipe.schemas import columnar
from streampipe.schemas.avro import parse, row_codec
from streampipe.schemas.coerce import UnfitValue, record_of
from streampipe.schemas.columnar import ColumnarCodec
from streampipe.schemas.defaults import check_defaults
from streampipe.schemas.evolution import Step, resolve
from streampipe.schemas.framing import Group, header, unframe
from streampipe.schemas.model import SchemaError, Type
from streampipe.schemas.port import Decoded, Encoded, Failure, Registry
from streampipe.schemas.scan import MalformedRecord
from streampipe.schemas.types import physical_type, schema_of

Fault = tuple[int, str, Exception]
"""A row, its failure class and what was raised for it."""


def parse_record(text: str, where: str) -> Type:
    """The tree of a record schema with its defaults checked. Raises ConfigError that names `where`."""
    try:
        node = parse(text)
        schema_of(node)
        check_defaults(node)
    except SchemaError as e:
        raise ConfigError(f"{where}: {e}") from None
    return node


@dataclass(slots=True)
class _Plan:
    """How records of one writer schema become columns of the reader's."""

    node: Type
    step: Step
    columnar: ColumnarCodec | None

    def read(self, bodies: Sequence[bytes]) -> tuple[pa.Array, IntArray | None, list[Fault]]:
        """Struct array of the reader's columns, the rows that are in it (None: all), and the faults."""
        try:
            if self.columnar is not None:
                return self.step.run(self.columnar.read(bodies)), None, []
        except ValueError:
            pass  # at least one of the records; below finds which
        rows, physical, faults = self._physical(bodies)
        made: list[pa.Array] = []
        good: list[int] = []

        def evolve(at: IntArray) -> None:
            made.append(self.step.run(physical if len(at) == len(physical) else physical.take(pa.array(at))))
            good.extend(rows[at].tolist())

        def refuse(at: int, error: ValueError) -> None:
            faults.append((int(rows[at]), "schema", error))

        _halve(np.arange(len(rows)), evolve, refuse)
        array = pa.concat_arrays(made) if made else self.step.run(physical.slice(0, 0))
        return array, np.array(good, np.int64) if faults else None, faults

    def _physical(self, bodies: Sequence[bytes]) -> tuple[IntArray, pa.Array, list[Fault]]:
        codec = row_codec(self.node)
        parts: list[pa.Array] = []
        good: list[int] = []
        faults: list[Fault] = []

        def read(at: IntArray) -> None:
            assert self.columnar is not None
            parts.append(self.columnar.read([bodies[i] for i in at.tolist()]))
            good.extend(at.tolist())

        def read_alone(at: int, _error: ValueError | None = None) -> None:
            try:
                parts.append(codec.array([codec.read(bodies[at])]))
                good.append(at)
            except MalformedRecord as e:
                faults.append((at, "deserialization", e))

        if self.columnar is not None:
            _halve(np.arange(len(bodies)), read, read_alone)
        else:
            values = []
            for at, body in enumerate(bodies):
                try:
                    values.append(codec.read(body))
                    good.append(at)
                except MalformedRecord as e:
                    faults.append((at, "deserialization", e))
            parts.append(codec.array(values))
        physical = pa.concat_arrays(parts) if parts else pa.array([], physical_type(self.node))
        return np.array(good, np.int64), physical, faults


def _halve(rows: IntArray, work: Callable[[IntArray], None], alone: Callable[[int, ValueError], None]) -> None:
    """Do `work` on `rows`, in order and in as few pieces as ValueErrors allow; single rows that raise go `alone`."""
    if not len(rows):
        return
    try:
        work(rows)
    except ValueError as e:
        if len(rows) == 1:
            alone(int(rows[0]), e)
            return
        middle = len(rows) // 2
        _halve(rows[:middle], work, alone)
        _halve(rows[middle:], work, alone)


class AvroDecoder:
    """`port.Decoder` over a registry. Raises ConfigError for a reader schema that is no valid record schema."""

    def __init__(self, registry: Registry, reader: str) -> None:
        self.reader = reader
        self._node = parse_record(reader, "reader schema")
        self.arrow: pa.Schema = schema_of(self._node)
        self._registry = registry
        self._plans: dict[int, _Plan] = {}
        self._refused: dict[int, SchemaError] = {}

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """See `port.Decoder`."""
        unframed = unframe(values)
        # All look-ups come first: when the registry is down, nothing was decoded.
        plans = [(group, self._plan(group.schema_id)) for group in unframed.groups]
        failures = unframed.failures
        parts: list[tuple[pa.Array, IntArray | None]] = []
        for group, plan in plans:
            if isinstance(plan, Exception):
                failures += _all_of(group, plan)
                continue
            array, rows, faults = plan.read(group.bodies)
            failures += [_failure(group, fault) for fault in faults]
            parts.append((array, rows if group.rows is None else group.rows if rows is None else group.rows[rows]))
        failures.sort(key=lambda failure: failure.row)
        columns, rows = self._in_order(parts)
        return Decoded(columns, rows, unframed.tombstones, failures)

    def _in_order(self, parts: list[tuple[pa.Array, IntArray | None]]) -> tuple[pa.RecordBatch, IntArray | None]:
        if not parts:
            return self._batch(pa.array([], pa.struct(list(self.arrow)))), np.array([], np.int64)
        array, rows = parts[0]
        if len(parts) > 1:
            array = pa.concat_arrays([part for part, _ in parts])
            rows = np.concatenate([at for _, at in parts if at is not None])
            order = np.argsort(rows)
            array, rows = array.take(pa.array(order)), rows[order]
        return self._batch(array), rows

    def _batch(self, array: pa.Array) -> pa.RecordBatch:
        if not len(self.arrow):
            return pa.RecordBatch.from_struct_array(array)
        return pa.RecordBatch.from_arrays([array.field(i) for i in range(len(self.arrow))], schema=self.arrow)

    def _plan(self, schema_id: int) -> _Plan | UnknownSchema | SchemaError:
        plan = self._plans.get(schema_id) or self._refused.get(schema_id)
        if plan is not None:
            return plan
        try:
            node = parse(self._registry.by_id(schema_id))
        except UnknownSchema as e:
            return e  # the registry remembers for a while, and asks again later
        except SchemaError as e:
            self._refused[schema_id] = e
            return e
        step = resolve(node, self._node)
        codec = ColumnarCodec(node) if columnar.supports(node) else None
        made = self._plans[schema_id] = _Plan(node, step, codec)
        return made


def _all_of(group: Group, error: Exception) -> list[Failure]:
    rows = range(len(group.bodies)) if group.rows is None else group.rows.tolist()
    return [Failure(row, "schema", type(error).__name__, str(error), group.schema_id) for row in rows]


def _failure(group: Group, fault: Fault) -> Failure:
    at, failure_class, error = fault
    row = at if group.rows is None else int(group.rows[at])
    return Failure(row, failure_class, type(error).__name__, str(error), group.schema_id)


class AvroEncoder:
    """`port.Encoder` for one registered schema. Raises ConfigError if that is no valid record schema."""

    def __init__(self, text: str, schema_id: int) -> None:
        self.schema_id, self.text = schema_id, text
        self._node = parse_record(text, f"schema id {schema_id}")
        self.arrow: pa.Schema = schema_of(self._node)
        self._header = header(schema_id)
        self._columnar = ColumnarCodec(self._node) if columnar.supports(self._node) else None

    def encode(self, columns: pa.RecordBatch) -> Encoded:
        """See `port.Encoder`."""
        count = columns.num_rows
        try:
            return Encoded(self._values(columns))
        except UnfitValue:
            pass  # at least one of the rows; below finds which
        values: list[bytes] = []
        good: list[int] = []
        failures: list[Failure] = []

        def encode(at: IntArray) -> None:
            values.extend(self._values(columns.take(pa.array(at))))
            good.extend(at.tolist())

        def refuse(at: int, error: ValueError) -> None:
            failures.append(Failure(at, "serialization", type(error).__name__, str(error), self.schema_id))

        _halve(np.arange(count), encode, refuse)
        return Encoded(values, np.array(good, np.int64), failures)

    def _values(self, columns: pa.RecordBatch) -> list[bytes]:
        if not columns.num_rows:
            return []
        named = dict(zip(columns.schema.names, columns.columns, strict=True))
        record = record_of(named, self._node, columns.num_rows)
        if self._columnar is None:
            return [self._header + body for body in row_codec(self._node).write(record)]
        bodies = self._columnar.write(record)
        head, nothing = pa.scalar(self._header, bodies.type), pa.scalar(b"", bodies.type)
        values: list[bytes] = pc.binary_join_element_wise(head, bodies, nothing).to_pylist()
        return values
