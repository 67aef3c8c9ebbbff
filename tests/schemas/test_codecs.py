"""The two codecs are one: the same bytes, the same columns, the same refusals."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.schemas import wire
from streampipe.schemas.avro import RowCodec, parse, read_all
from streampipe.schemas.codec import AvroEncoder
from streampipe.schemas.columnar import ColumnarCodec, supports
from streampipe.schemas.types import physical_type
from tests.schemas.strategies import schemas_with_values
from tests.schemas.support import decoder, failing_rows, framed, physical, rows_of, untagged

Generated = tuple[str, list[dict[str, Any]]]


@given(schemas_with_values())
def test_the_row_codec_reads_what_it_wrote(generated: Generated) -> None:
    node = parse(generated[0])
    codec, array = RowCodec(node), pa.array(generated[1], physical_type(node))
    assert read_all(codec, codec.write(array)).equals(array)


@given(schemas_with_values())
def test_the_row_codec_writes_what_fastavro_reads_with_the_plain_schema(generated: Generated) -> None:
    node = parse(generated[0])
    array = pa.array(generated[1], physical_type(node))
    schema = fastavro.parse_schema(wire.plain(node))
    read = [fastavro.schemaless_reader(io.BytesIO(b), schema, None) for b in RowCodec(node).write(array)]
    assert read == [untagged(node, value) for value in array.to_pylist()]


@given(schemas_with_values(row_types=False))
def test_the_columnar_codec_agrees_with_the_row_codec_both_ways(generated: Generated) -> None:
    node = parse(generated[0])
    if not supports(node):
        return
    array = pa.array(generated[1], physical_type(node))
    bodies = RowCodec(node).write(array)
    codec = ColumnarCodec(node)
    assert codec.write(array).to_pylist() == bodies
    read = codec.read(bodies)
    read.validate(full=True)
    assert read.equals(array)


@given(schemas_with_values())
def test_columns_encode_to_the_values_that_they_were_decoded_from(generated: Generated) -> None:
    text, node = generated[0], parse(generated[0])
    values = framed(RowCodec(node).write(pa.array(generated[1], physical_type(node))))
    made = decoder(text, text)
    decoded = made.decode(values)
    assert decoded.failures == []
    assert decoded.columns.schema == made.arrow
    decoded.columns.validate(full=False)
    encoded = AvroEncoder(text, 1).encode(decoded.columns)
    assert encoded.failures == []
    assert encoded.values == values


@given(schemas_with_values(row_types=False), st.data())
def test_damaged_bodies_have_the_same_fate_in_both_codecs(generated: Generated, data: st.DataObject) -> None:
    node = parse(generated[0])
    bodies = RowCodec(node).write(pa.array(generated[1], physical_type(node)))
    damaged = [data.draw(st.one_of(st.just(body), _damage(body))) for body in bodies]
    fast, slow = (
        decoder(*[generated[0]] * 2, rows_only=rows_only).decode(framed(damaged)) for rows_only in (False, True)
    )
    assert failing_rows(fast) == failing_rows(slow)
    assert rows_of(fast, len(bodies)) == rows_of(slow, len(bodies))
    assert str(physical(fast.columns, node)) == str(physical(slow.columns, node))  # damage may make a NaN


def _damage(body: bytes) -> st.SearchStrategy[bytes]:
    at = st.integers(0, max(len(body) - 1, 0))
    cut = at.map(lambda i: body[:i])
    flipped = st.tuples(at, st.integers(0, 255)).map(lambda t: body[: t[0]] + bytes([t[1]]) + body[t[0] + 1 :])
    return st.one_of(cut, flipped, st.binary(max_size=12), st.binary(max_size=4).map(lambda tail: body + tail))


def _one_field(kind: Any) -> str:
    return orjson.dumps({"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}).decode()


@pytest.mark.parametrize("rows_only", [False, True])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("boolean", b"\x02"),
        ("int", b"\x80\x80\x80\x80\x40"),
        ("int", b""),
        ("long", b"\xff" * 11),
        ("string", b"\x04\xff\xfe"),
        ("string", b"\x06ab"),
        ("string", b"\x01"),
        ("double", b"1234567"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x01"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02"),
        (["null", "int"], b"\x04"),
        (["null", "int"], b"\x01"),
        (["null", "int", "string"], b"\x06"),
        ({"type": "array", "items": "float"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ({"type": "map", "values": "int"}, b"\x02\x02\xff\x02\x00"),
    ],
)
def test_bytes_that_the_schema_does_not_allow_are_refused(kind: Any, body: bytes, rows_only: bool) -> None:
    decoded = decoder(*[_one_field(kind)] * 2, rows_only=rows_only).decode(framed([body]))
    assert failing_rows(decoded) == {0: ("deserialization", "MalformedRecord")}
    assert decoded.columns.num_rows == 0


@pytest.mark.parametrize("rows_only", [False, True])
def test_bytes_after_a_record_are_ignored_as_in_java(rows_only: bool) -> None:
    decoded = decoder(*[_one_field("int")] * 2, rows_only=rows_only).decode(framed([b"\x02rest", b"\x04"]))
    assert decoded.columns.to_pydict() == {"f": [1, 2]}


@pytest.mark.parametrize("rows_only", [False, True])
def test_the_last_of_a_repeated_map_key_wins(rows_only: bool) -> None:
    text = _one_field({"type": "map", "values": "int"})
    decoded = decoder(text, text, rows_only=rows_only).decode(
        framed([b"\x04\x02a\x02\x02a\x04\x00", b"\x02\x02a\x02\x00"])
    )
    assert decoded.columns.to_pydict() == {"f": [[("a", 2)], [("a", 1)]]}


@pytest.mark.parametrize("kind", ["bytes", "null", {"type": "array", "items": "null"}, ["int", "long"], ["int"]])
def test_what_the_fast_codec_cannot_be_trusted_with_is_left_to_the_row_codec(kind: Any) -> None:
    assert not supports(parse(_one_field(kind)))


def test_nan_and_infinities_survive() -> None:
    text = _one_field("double")
    values = framed([bytes.fromhex("000000000000f87f"), bytes.fromhex("000000000000f0ff")])
    assert AvroEncoder(text, 1).encode(decoder(text, text).decode(values).columns).values == values
