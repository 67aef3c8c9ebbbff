"""Columns of any Arrow kind become framed values; rows that do not fit are set apart."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pytest

from streampipe.errors import ConfigError, TopologyError
from streampipe.schemas.codec import AvroEncoder
from streampipe.schemas.naming import avro_schema_for
from streampipe.schemas.port import Encoded
from tests.schemas.support import decoder


def schema(*fields: tuple[str, Any] | tuple[str, Any, Any]) -> str:
    made = [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields]
    return orjson.dumps({"type": "record", "name": "R", "fields": made}).decode()


def encode(text: str, **columns: Any) -> Encoded:
    return AvroEncoder(text, 1).encode(pa.record_batch(columns))


def back(text: str, encoded: Encoded) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = decoder(text, text).decode(encoded.values).columns.to_pylist()
    return rows


def test_columns_are_found_by_name_and_others_are_ignored() -> None:
    text = schema(("a", "int"), ("b", "string"))
    encoded = encode(text, z=pa.array([1.5]), b=pa.array(["x"], pa.large_string()), a=pa.array([3], pa.int64()))
    assert encoded.values == [b"\x00\x00\x00\x00\x01\x06\x02x"]
    assert encoded.rows is None


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_kind_of_text_column_encodes(kind: pa.DataType) -> None:
    text = schema(("s", ["null", "string"]))
    array = pa.array(["é", None, ""]).cast(kind)
    assert [row["s"] for row in back(text, encode(text, s=array))] == ["é", None, ""]


def test_a_missing_column_takes_the_default_and_without_one_is_an_error() -> None:
    text = schema(("a", "int"), ("b", {"type": "map", "values": "bytes"}, {"k": "\u00ff"}))
    assert back(text, encode(text, a=pa.array([1]))) == [{"a": 1, "b": [("k", b"\xff")]}]
    with pytest.raises(TopologyError, match="column a"):
        encode(text, b=pa.array([[]], pa.map_(pa.string(), pa.binary())))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", 1, 2**31),
        ("int", 1, None),
        ("string", "x", None),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "A", "C"),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", b"abc"),
        ({"type": "array", "items": "int"}, [1], [1, None]),
        ({"type": "record", "name": "Q", "fields": [{"name": "q", "type": "int"}]}, {"q": 1}, {"q": None}),
        (["null", {"type": "record", "name": "Q", "fields": [{"name": "q", "type": "int"}]}], None, {"q": None}),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}, Decimal("1.5"), Decimal("12345.5")),
        (["int", "string"], {"int": 1, "string": None}, {"int": 1, "string": "x"}),
        (["int", "string"], {"int": None, "string": "x"}, {"int": None, "string": None}),
    ],
)
def test_a_row_that_does_not_fit_fails_alone_and_says_which_column(kind: Any, good: Any, bad: Any) -> None:
    text = schema(("col", kind))
    encoded = encode(text, col=pa.array([good, good, bad, good]))
    assert encoded.rows is not None
    assert encoded.rows.tolist() == [0, 1, 3]
    assert len(encoded.values) == 3
    (failure,) = encoded.failures
    assert (failure.row, failure.failure_class, failure.exception) == (2, "serialization", "UnfitValue")
    assert failure.message.startswith("col")
    assert "12345" not in failure.message


def test_columns_of_polars_come_back_as_they_were() -> None:
    frame = pl.DataFrame(
        {
            "s": ["a", None],
            "n": [1, 2**40],
            "at": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None],
            "naive": [dt.datetime(2024, 1, 1), None],  # noqa: DTZ001  (a time without zone is what this is about)
            "day": [dt.date(2024, 1, 1), None],
            "list": [[1, None], []],
            "rec": [{"x": 1.5, "y": "z"}, None],
            "cat": pl.Series(["u", "v"], dtype=pl.Categorical),
            "raw": [b"\x00\xff", None],
            "dec": [Decimal("1.25"), Decimal("-3.00")],
        },
        schema_overrides={"dec": pl.Decimal(10, 2)},
    )
    (batch,) = frame.to_arrow().combine_chunks().to_batches()
    text = avro_schema_for("thing", batch.schema)
    encoded = AvroEncoder(text, 1).encode(batch)
    assert encoded.failures == []
    decoded = pl.from_arrow(decoder(text, text).decode(encoded.values).columns)
    assert isinstance(decoded, pl.DataFrame)
    assert decoded.equals(frame.with_columns(pl.col("cat").cast(pl.String)))


def test_slices_and_empty_batches_encode() -> None:
    text = schema(("a", ["null", {"type": "array", "items": "string"}]), ("m", {"type": "map", "values": "int"}))
    batch = pa.record_batch(
        {
            "a": pa.array([["x"], None, ["y", "z"], []]),
            "m": pa.array([[("k", 1)], [], [("l", 2), ("m", 3)], []], pa.map_(pa.string(), pa.int32())),
        }
    )
    whole = AvroEncoder(text, 1).encode(batch).values
    assert AvroEncoder(text, 1).encode(batch.slice(1, 2)).values == whole[1:3]
    assert AvroEncoder(text, 1).encode(batch.slice(0, 0)).values == []


def test_a_naive_time_is_one_in_utc() -> None:
    text = schema(("t", {"type": "long", "logicalType": "timestamp-millis"}))
    encoded = encode(text, t=pa.array([1_000_000], pa.timestamp("us")))
    assert encoded.values == [b"\x00\x00\x00\x00\x01\xd0\x0f"]


@pytest.mark.parametrize("text", ['"int"', "{}", "nonsense"])
def test_a_schema_that_is_no_record_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        AvroEncoder(text, 1)
