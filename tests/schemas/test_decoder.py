"""Batches of good and bad records: everything in one of columns, tombstones and failures, in order."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.errors import ConfigError, Unavailable
from streampipe.schemas.codec import AvroDecoder
from streampipe.schemas.framing import header, unframe
from tests.schemas.support import DictRegistry, failing_rows, rows_of

V1 = orjson.dumps(
    {"type": "record", "name": "T", "fields": [{"name": "n", "type": "int"}, {"name": "s", "type": "string"}]}
).decode()
V2 = orjson.dumps(
    {
        "type": "record",
        "name": "T",
        "fields": [
            {"name": "s", "type": "string"},
            {"name": "number", "type": "long", "aliases": ["n"]},
            {"name": "extra", "type": {"type": "array", "items": "int"}, "default": [7]},
        ],
    }
).decode()
OTHER = orjson.dumps({"type": "record", "name": "T", "fields": [{"name": "x", "type": "bytes"}]}).decode()


def v1(number: int) -> bytes:
    return header(1) + bytes([number * 2]) + b"\x02a"


def v2(number: int) -> bytes:
    return header(2) + b"\x02b" + bytes([number * 2]) + b"\x00"


BAD = {
    b"": ("deserialization", "Truncated"),
    b"\x00\x00\x00": ("deserialization", "Truncated"),
    b"\x01\x00\x00\x00\x01\x02\x02a": ("deserialization", "BadMagic"),
    b"garbage": ("deserialization", "BadMagic"),
    header(1) + b"\x02\x08a": ("deserialization", "MalformedRecord"),
    header(1) + b"\x02\x02\xff": ("deserialization", "MalformedRecord"),
    header(99) + b"\x02\x02a": ("schema", "UnknownSchema"),
    b"\x00\xff\xff\xff\xff\x02": ("schema", "UnknownSchema"),
    header(3) + b"\x02a": ("schema", "ResolutionError"),
    header(4) + b"\x02a": ("schema", "SchemaError"),
}


def made(reader: str = V2) -> tuple[AvroDecoder, DictRegistry]:
    registry = DictRegistry({1: V1, 2: V2, 3: OTHER, 4: '{"type": "nonsense"}'})
    return AvroDecoder(registry, reader), registry


def test_mixed_schema_ids_and_tombstones_keep_their_order() -> None:
    values = [v1(1), None, v2(2), v1(3), None, v2(4), v2(5)]
    decoded = made()[0].decode(values)
    assert decoded.tombstones is not None
    assert decoded.tombstones.tolist() == [1, 4]
    assert rows_of(decoded, 7) == [0, 2, 3, 5, 6]
    assert decoded.columns.to_pydict() == {
        "s": ["a", "b", "a", "b", "b"],
        "number": [1, 2, 3, 4, 5],
        "extra": [[7], [], [7], [], []],
    }


def test_a_batch_of_one_schema_without_trouble_names_no_rows() -> None:
    decoded = made()[0].decode([v1(1), v1(2)])
    assert (decoded.rows, decoded.tombstones, decoded.failures) == (None, None, [])


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.hex() or "empty")
def test_a_bad_record_fails_alone(bad: bytes) -> None:
    decoded = made()[0].decode([v1(1), v2(2), bad, v1(3)])
    assert failing_rows(decoded) == {2: BAD[bad]}
    assert decoded.columns.column("number").to_pylist() == [1, 2, 3]
    assert rows_of(decoded, 4) == [0, 1, 3]


_RECORDS = st.one_of(
    st.none(), st.integers(0, 60).map(v1), st.integers(0, 60).map(v2), st.sampled_from(list(BAD)), st.binary(max_size=9)
)


@given(st.lists(_RECORDS, max_size=30), st.integers(1, 7))
def test_how_records_are_cut_into_batches_changes_nothing(values: list[bytes | None], size: int) -> None:
    decoder = made()[0]
    whole = decoder.decode(values)
    fates: list[object] = [None] * len(values)
    numbers: list[object] = []
    for start in range(0, len(values), size):
        part = decoder.decode(values[start : start + size])
        for failure in part.failures:
            fates[start + failure.row] = (failure.failure_class, failure.exception, failure.message, failure.schema_id)
        numbers += part.columns.to_pylist()
    expected: list[object] = [None] * len(values)
    for failure in whole.failures:
        expected[failure.row] = (failure.failure_class, failure.exception, failure.message, failure.schema_id)
    assert fates == expected
    assert numbers == whole.columns.to_pylist()


@given(st.lists(_RECORDS, max_size=30))
def test_every_record_has_exactly_one_fate(values: list[bytes | None]) -> None:
    decoded = made()[0].decode(values)
    tombstones = [] if decoded.tombstones is None else decoded.tombstones.tolist()
    good = rows_of(decoded, len(values))
    assert decoded.columns.num_rows == len(good)
    assert good == sorted(good)
    assert tombstones == [row for row, value in enumerate(values) if value is None]
    assert sorted([*good, *tombstones, *(f.row for f in decoded.failures)]) == list(range(len(values)))


def test_a_batch_of_one_unknown_id_asks_the_registry_once() -> None:
    decoder, registry = made()
    decoded = decoder.decode([header(77) + b"x"] * 1_000)
    assert len(decoded.failures) == 1_000
    assert {failure.schema_id for failure in decoded.failures} == {77}
    assert registry.calls == 1


def test_bad_frames_never_ask_the_registry() -> None:
    decoder, registry = made()
    assert len(decoder.decode([b"", b"\x01abcdefg", b"\x00\x00", b"{}", b"\x00\xff\xff\xff\xff"]).failures) == 5
    assert registry.calls == 0


def test_known_schemas_are_not_asked_for_again() -> None:
    decoder, registry = made()
    for _ in range(3):
        decoder.decode([v1(1), v2(2), header(3) + b"\x02a", header(4) + b"\x02a"])
    assert registry.calls == 4


def test_an_unavailable_registry_is_no_failure_of_a_record() -> None:
    decoder, registry = made()
    registry.down = True
    with pytest.raises(Unavailable):
        decoder.decode([v1(1)])
    registry.down = False
    assert decoder.decode([v1(1)]).columns.num_rows == 1


def test_failure_messages_hold_no_payload() -> None:
    secret = b"hunter2-hunter2"
    values = [
        secret,
        b"\x00\x00",
        header(1) + b"\x02\x02" + secret[:1] + b"\xff",
        header(1) + secret,
        header(3) + secret,
    ]
    for failure in made()[0].decode([*values, header(1) + b"\x02\x14\xff" + secret]).failures:
        assert "hunter" not in failure.message
        assert "\n" not in failure.message


def test_an_id_that_becomes_known_is_read_from_then_on() -> None:
    decoder, registry = made()
    assert decoder.decode([header(9) + b"\x02\x02a"]).columns.num_rows == 0
    registry.texts[9] = V1
    assert decoder.decode([header(9) + b"\x02\x02a"]).columns.num_rows == 1


def test_an_empty_batch_has_the_columns_of_the_reader() -> None:
    decoder, _ = made()
    assert decoder.decode([]).columns.schema == decoder.arrow


@pytest.mark.parametrize("text", ["", "{", '"string"', '{"type": "record"}', '["null", "int"]'])
def test_a_reader_schema_that_is_no_record_schema_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        AvroDecoder(DictRegistry({}), text)


def test_a_default_that_does_not_fit_its_field_is_a_config_error() -> None:
    field = {"name": "n", "type": "int", "default": "seven"}
    with pytest.raises(ConfigError, match="'n'"):
        AvroDecoder(DictRegistry({}), orjson.dumps({"type": "record", "name": "T", "fields": [field]}).decode())


def test_a_record_without_fields_still_has_its_rows() -> None:
    empty = '{"type": "record", "name": "E", "fields": []}'
    decoded = AvroDecoder(DictRegistry({1: empty, 2: V1}), empty).decode([header(1), header(1)])
    assert decoded.columns.num_rows == 2


def test_unframing_groups_by_id() -> None:
    unframed = unframe([header(1) + b"a", header(2) + b"b", header(1) + b"c"])
    assert [(g.schema_id, g.bodies, None if g.rows is None else g.rows.tolist()) for g in unframed.groups] == [
        (1, [b"a", b"c"], [0, 2]),
        (2, [b"b"], [1]),
    ]
