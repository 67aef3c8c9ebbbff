"""Resolution on columns, against fastavro's on rows where that is right, and where it is told apart by rule."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streampipe.schemas.avro import RowCodec, parse
from streampipe.schemas.types import physical_type
from tests.schemas.strategies import schemas_with_values
from tests.schemas.support import decoder, failing_rows, framed, physical, untagged

PROMOTIONS = {"int": "long", "float": "double", "bytes": "string", "long": "double"}


def _evolved(text: str, data: st.DataObject) -> str:
    """A reader that drops, promotes, renames by alias, makes nullable, reorders and adds fields."""
    schema = orjson.loads(text)
    fields = []
    for field in schema["fields"]:
        kind, change = field["type"], data.draw(st.sampled_from(["keep", "drop", "promote", "nullable", "rename"]))
        if change == "drop":
            continue
        made = dict(field)
        if change == "promote" and isinstance(kind, str) and kind in PROMOTIONS:
            made["type"] = PROMOTIONS[kind]
        elif change == "nullable" and not isinstance(kind, list) and kind != "null":
            made["type"] = ["null", kind]
        elif change == "rename":
            made = {**field, "name": f"new_{field['name']}", "aliases": [field["name"]]}
        fields.append(made)
    fields.append({"name": "added", "type": {"type": "array", "items": "int"}, "default": [1, 2]})
    schema["fields"] = data.draw(st.permutations(fields))
    return orjson.dumps(schema).decode()


@given(schemas_with_values(), st.data())
def test_an_evolved_reader_sees_what_fastavro_resolves(generated: tuple[str, list[Any]], data: st.DataObject) -> None:
    assume(not _would_be_promoted(orjson.loads(generated[0])))
    writer, reader = parse(generated[0]), _evolved(generated[0], data)
    bodies = RowCodec(writer).write(pa.array(generated[1], physical_type(writer)))
    node = parse(reader)
    fastavro_writer, fastavro_reader = (_without_logical(orjson.loads(text)) for text in (generated[0], reader))
    expected, failing = [], set()
    for row, body in enumerate(bodies):
        try:
            expected.append(fastavro.schemaless_reader(io.BytesIO(body), fastavro_writer, fastavro_reader))
        except (fastavro.read.SchemaResolutionError, UnicodeDecodeError):
            failing.add(row)
    decoded = decoder(generated[0], reader).decode(framed(bodies))
    assert set(failing_rows(decoded)) == failing
    assert [untagged(node, value) for value in physical(decoded.columns, node)] == expected


def _would_be_promoted(node: Any) -> bool:
    """Whether a union has text and a decimal, which fastavro reads text as when it is not told that it is one."""
    if isinstance(node, dict):
        return any(map(_would_be_promoted, node.values()))
    if not isinstance(node, list):
        return False
    decimal = any(isinstance(kind, dict) and kind.get("type") == "bytes" and "logicalType" in kind for kind in node)
    return (decimal and "string" in node) or any(map(_would_be_promoted, node))


def _without_logical(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_logical(v) for k, v in node.items() if k != "logicalType"}
    return [_without_logical(v) for v in node] if isinstance(node, list) else node


def _record(*fields: tuple[str, Any] | tuple[str, Any, Any]) -> str:
    made = [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields]
    return orjson.dumps({"type": "record", "name": "R", "fields": made}).decode()


def _read(writer: str, reader: str, *bodies: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = decoder(writer, reader).decode(framed(list(bodies))).columns.to_pylist()
    return rows


def test_a_bytes_default_is_one_byte_for_each_code_point() -> None:
    assert _read(_record(), _record(("b", "bytes", "\u00ff\u0000")), b"") == [{"b": b"\xff\x00"}]


def test_an_int_promoted_to_float_is_cut_to_32_bits() -> None:
    (row,) = _read(_record(("n", "int")), _record(("n", "float")), b"\xfe\xff\xff\xff\x0f")
    assert row == {"n": 2147483648.0}


@pytest.mark.parametrize("rows_only", [False, True])
def test_a_record_cut_short_inside_a_skipped_field_fails(rows_only: bool) -> None:
    writer, reader = _record(("a", "int"), ("b", "string")), _record(("a", "int"))
    decoded = decoder(writer, reader, rows_only=rows_only).decode(framed([b"\x02\x08ab", b"\x02\x04ab"]))
    assert failing_rows(decoded) == {0: ("deserialization", "MalformedRecord")}


def test_the_branch_that_was_written_decides_not_the_schema() -> None:
    writer, reader = _record(("u", ["int", "string"])), _record(("u", "long"))
    decoded = decoder(writer, reader).decode(framed([b"\x00\x02", b"\x02\x02x", b"\x00\x04"]))
    assert decoded.columns.to_pydict() == {"u": [1, 2]}
    assert failing_rows(decoded) == {1: ("schema", "ResolutionError")}


def test_an_unknown_symbol_takes_the_readers_default_or_fails() -> None:
    old = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
    new = {"type": "enum", "name": "E", "symbols": ["A", "C"]}
    assert _read(_record(("e", old)), _record(("e", {**new, "default": "C"})), b"\x00", b"\x02") == [
        {"e": "A"},
        {"e": "C"},
    ]
    decoded = decoder(_record(("e", old)), _record(("e", new))).decode(framed([b"\x00", b"\x02"]))
    assert failing_rows(decoded) == {1: ("schema", "ResolutionError")}


def test_a_recursive_record_evolves_at_every_level() -> None:
    def tree(*fields: dict[str, Any]) -> str:
        link = {"name": "next", "type": ["null", "N"]}
        return orjson.dumps({"type": "record", "name": "N", "fields": [*fields, link]}).decode()

    writer, reader = (
        tree({"name": "v", "type": "int"}),
        tree({"name": "w", "type": "int", "default": 5}, {"name": "v", "type": "long"}),
    )
    (row,) = _read(writer, reader, b"\x02\x02\x04\x02\x06\x00")
    assert row == {"w": 5, "v": 1, "next": b"\x0a\x04\x02\x0a\x06\x00"}
