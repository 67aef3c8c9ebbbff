"""What several tests of this folder need: a registry out of a dictionary, and values in a form to compare."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from streampipe.errors import Unavailable, UnknownSchema, UnknownSubject
from streampipe.schemas.codec import AvroDecoder
from streampipe.schemas.coerce import record_of
from streampipe.schemas.framing import header
from streampipe.schemas.model import Type
from streampipe.schemas.port import Decoded, RegisteredSchema


class DictRegistry:
    """Schemas by id, counting the look-ups; `down` makes every one of them fail."""

    name = "dict"

    def __init__(self, texts: dict[int, str]) -> None:
        self.texts, self.calls, self.down = texts, 0, False

    def by_id(self, schema_id: int) -> str:
        self.calls += 1
        if self.down:
            raise Unavailable("down")
        if schema_id not in self.texts:
            raise UnknownSchema(schema_id)
        return self.texts[schema_id]

    def latest(self, subject: str) -> RegisteredSchema:
        raise UnknownSubject(subject)

    def version(self, subject: str, version: int) -> RegisteredSchema:
        raise UnknownSubject(subject)

    def register(self, subject: str, text: str) -> int:
        raise NotImplementedError

    def incompatibilities(self, subject: str, text: str) -> list[str]:
        raise NotImplementedError

    def subjects(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


def framed(bodies: list[bytes], schema_id: int = 1) -> list[bytes | None]:
    return [header(schema_id) + body for body in bodies]


def decoder(writer: str, reader: str, *, rows_only: bool = False) -> AvroDecoder:
    """A decoder that knows `writer` as id 1; `rows_only` takes the columnar codec away from it."""
    made = AvroDecoder(DictRegistry({1: writer}), reader)
    plan = made._plan(1)
    if rows_only and not isinstance(plan, Exception):
        plan.columnar = None
    return made


def runs_columnar(made: AvroDecoder) -> bool:
    plan = made._plan(1)
    return not isinstance(plan, Exception) and plan.columnar is not None


def physical(columns: pa.RecordBatch, node: Type) -> list[Any]:
    """Columns as physical values: no timestamps or decimals, which Python cannot hold in all their range."""
    named = dict(zip(columns.schema.names, columns.columns, strict=True))
    values: list[Any] = record_of(named, node, columns.num_rows).to_pylist()
    return values


def untagged(node: Type, value: Any) -> Any:
    """A physical value as Avro's readers give it: unions without the name of their branch, maps as dictionaries."""
    if value is None:
        return None
    if node.kind == "union":
        if node.nullable is not None:
            return untagged(node.nullable, value)
        by_label = {branch.label: branch for branch in node.branches}
        return next((untagged(by_label[k], v) for k, v in value.items() if v is not None), None)
    if node.kind == "record":
        return {f.name: untagged(f.type, value[f.name]) for f in node.fields}
    if node.kind == "array":
        return [untagged(node.child, v) for v in value]
    if node.kind == "map":
        return {k: untagged(node.child, v) for k, v in value}
    return value


def failing_rows(decoded: Decoded) -> dict[int, tuple[str, str]]:
    return {failure.row: (failure.failure_class, failure.exception) for failure in decoded.failures}


def rows_of(decoded: Decoded, count: int) -> list[int]:
    return list(range(count)) if decoded.rows is None else decoded.rows.tolist()
