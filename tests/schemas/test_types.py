"""Avro types as Arrow types and back."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pytest

from streampipe.errors import TopologyError
from streampipe.schemas.avro import parse
from streampipe.schemas.naming import avro_schema_for
from streampipe.schemas.types import column_type, schema_of

UTC = "UTC"
TYPES: list[tuple[Any, pa.DataType]] = [
    ("null", pa.null()),
    ("int", pa.int32()),
    ("long", pa.int64()),
    ("float", pa.float32()),
    ("double", pa.float64()),
    ("string", pa.string()),
    ("bytes", pa.binary()),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, pa.string()),
    ({"type": "fixed", "name": "F", "size": 3}, pa.binary()),
    ({"type": "int", "logicalType": "date"}, pa.date32()),
    ({"type": "int", "logicalType": "time-millis"}, pa.time32("ms")),
    ({"type": "long", "logicalType": "time-micros"}, pa.time64("us")),
    ({"type": "long", "logicalType": "timestamp-millis"}, pa.timestamp("ms", UTC)),
    ({"type": "long", "logicalType": "timestamp-micros"}, pa.timestamp("us", UTC)),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, pa.timestamp("us")),
    ({"type": "string", "logicalType": "uuid"}, pa.string()),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, pa.decimal128(9, 2)),
    ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 9}, pa.binary()),
    ({"type": "string", "logicalType": "nonsense"}, pa.string()),
    (["null", "int"], pa.int32()),
    (["null", "int", "string"], pa.struct([("int", pa.int32()), ("string", pa.string())])),
    ({"type": "array", "items": ["null", "int"]}, pa.list_(pa.int32())),
    ({"type": "map", "values": "int"}, pa.map_(pa.string(), pa.int32())),
]


@pytest.mark.parametrize(("avro", "arrow"), TYPES, ids=lambda kind: str(kind)[:30])
def test_every_avro_type_has_its_arrow_type(avro: Any, arrow: pa.DataType) -> None:
    assert column_type(parse(orjson.dumps(avro).decode())) == arrow


def test_columns_are_nullable_where_the_schema_says_so() -> None:
    text = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":["int","null"]}]}'
    assert [field.nullable for field in schema_of(parse(text))] == [False, True]


def test_a_schema_made_for_columns_gives_those_columns() -> None:
    columns = pa.schema(
        [
            pa.field("n", pa.int32(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("at", pa.timestamp("us", UTC)),
            pa.field("local", pa.timestamp("ms")),
            pa.field("day", pa.date32()),
            pa.field("time", pa.time64("us")),
            pa.field("money", pa.decimal128(12, 3)),
            pa.field("list", pa.list_(pa.struct([("x", pa.float64())]))),
            pa.field("map", pa.map_(pa.string(), pa.int64())),
            pa.field("rec", pa.struct([("x", pa.struct([("y", pa.bool_())]))])),
        ]
    )
    assert schema_of(parse(avro_schema_for("a-topic.v1", columns))) == columns


@pytest.mark.parametrize(
    "field", [pa.field("a b", pa.int32()), pa.field("u", pa.dense_union([pa.field("x", pa.int8())]))]
)
def test_a_column_that_avro_cannot_say_is_named(field: pa.Field) -> None:
    with pytest.raises(TopologyError, match=field.name):
        avro_schema_for("topic", pa.schema([field]))
