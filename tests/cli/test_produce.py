from __future__ import annotations

import gzip
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.cli.columns import from_json, from_text
from tests.cli.conftest import Cli, Result

SCHEMA = """{"type": "record", "name": "R", "fields": [
  {"name": "id", "type": "int"},
  {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, "default": "A"},
  {"name": "note", "type": ["null", "string"], "default": null},
  {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
  {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": null}]}"""


@pytest.fixture
def produce(cli: Cli) -> Any:
    Path("r.avsc").write_text(SCHEMA)

    def run(content: str | bytes, *options: str, name: str = "in.jsonl") -> Result:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        return cli("produce", "t", name, "--schema", "r.avsc", "--partitions", "1", *options)

    return run


def values(cli: Cli) -> list[Any]:
    return [line["value"] for line in cli("consume", "t", "--json").lines]


def test_missing_fields_take_their_defaults(cli: Cli, produce: Any) -> None:
    assert produce('{"id": 1}\n\n{"id": 2, "kind": "B", "tags": ["x"], "day": "2024-05-01"}').code == 0
    assert values(cli) == [
        {"id": 1, "kind": "A", "note": None, "tags": [], "day": None},
        {"id": 2, "kind": "B", "note": None, "tags": ["x"], "day": "2024-05-01"},
    ]


BAD_LINES = {
    '{"id": "2"}': "field 'id' is no int32",
    '{"id": true}': "field 'id' is no int32",
    '{"id": 3000000000}': "field 'id' is no int32",
    '{"id": 2, "note": 5}': "field 'note' is no string",
    '{"id": 2, "kind": "C"}': "kind",
    '{"id": 2, "tags": [1]}': "field 'tags'",
    '{"id": 2, "day": "May"}': "field 'day'",
    '{"id": null}': "id is null",
    '{"note": "x"}': "field 'id' is missing",
    '{"id": 2': "no JSON",
    "[1]": "a JSON object is needed",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_and_nothing_of_its_chunk_is_sent(cli: Cli, produce: Any, line: str) -> None:
    result = produce(f'{{"id": 1}}\n{line}\n{{"id": 3}}\n')
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: in.jsonl:2: ")
    assert BAD_LINES[line] in result.err
    assert values(cli) == []


@pytest.mark.parametrize("line", BAD_LINES)
def test_skip_bad_leaves_just_the_bad_line_out_and_lists_it(cli: Cli, produce: Any, line: str) -> None:
    result = produce(f'{{"id": 1}}\n{line}\n{{"id": 3}}\n', "--skip-bad", "--json")
    assert (result.code, result.json["records"], result.json["skipped"]) == (0, 2, 1)
    assert "line 2 left out" in result.err
    assert [value["id"] for value in values(cli)] == [1, 3]


def test_fields_that_the_schema_lacks_are_left_out_with_a_warning(cli: Cli, produce: Any) -> None:
    assert "not in the schema, left out: extra" in produce('{"id": 1, "extra": 2}').err


CSV = 'id,kind,note,extra\n1,A,"two\nlines",x\n2,B,NA,x\n3,A,,x\n'


def test_csv_cells_are_typed_by_the_schema_and_na_is_null(cli: Cli, produce: Any) -> None:
    assert produce(CSV, name="in.csv").code == 0
    assert [(v["id"], v["kind"], v["note"]) for v in values(cli)] == [
        (1, "A", "two\nlines"),
        (2, "B", None),
        (3, "A", None),
    ]


def test_what_means_null_can_be_chosen(cli: Cli, produce: Any) -> None:
    produce(gzip.compress(CSV.encode()), "--na", "two\nlines", name="in.csv.gz")
    assert [v["note"] for v in values(cli)] == [None, "NA", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id\n1\nx\n", "in.csv:3: field 'id' is no int32"),
        ("id\n1.5\n", "in.csv:2: field 'id'"),
        ("id,note\n1,a\n2\n", "in.csv:3: 1 cells, the header has 2"),
        ("note\na\n", "in.csv:1: column 'id'"),
        ("", "is empty"),
        ('id,note\n1,"a\nb"\nx,c\n', "in.csv:4: field 'id'"),
        ("id,tags\n1,x\n", "which a CSV file cannot hold"),
    ],
)
def test_a_bad_csv_file_is_named_with_its_line(produce: Any, text: str, words: str) -> None:
    result = produce(text, name="in.csv")
    assert result.code in (1, 3)
    assert words in result.err


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl.zst", "in"])
def test_a_file_of_another_kind_is_refused(produce: Any, name: str) -> None:
    assert produce("x", name=name).code == 3


def test_what_is_not_gzip_or_not_text_is_an_error_of_one_line(produce: Any) -> None:
    for content, name in ((b"plain", "in.jsonl.gz"), (b'{"id": 1, "note": "\xff"}', "in.jsonl")):
        result = produce(content, name=name)
        assert result.code == 1
        assert "cannot be read" in result.err


def test_a_key_of_two_fields_and_its_timestamp(cli: Cli, produce: Any) -> None:
    produce('{"id": 1, "day": "2024-05-01"}', "--key", "id,kind", "--timestamp", "day")
    (line,) = cli("consume", "t", "--json").lines
    assert orjson.loads(line["key"]) == {"id": 1, "kind": "A"}
    assert line["timestamp"] == "2024-05-01T00:00:00.000Z"
    assert produce('{"id": 1}', "--timestamp", "day").code == 1
    assert produce('{"id": 1}', "--key", "nope").code == 3


def test_lines_come_from_standard_input(cli: Cli, produce: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"id": 7}\n'))
    assert cli("produce", "t", "-", "--schema", "r.avsc", "--partitions", "1").code == 0
    assert [v["id"] for v in values(cli)] == [7]


INT, LONG, REAL = pa.field("x", pa.int32()), pa.field("x", pa.int64()), pa.field("x", pa.float64())
MOMENT = pa.field("x", pa.timestamp("ms", "UTC"))


@given(st.lists(st.none() | st.integers(-(2**40), 2**40)))
def test_whole_numbers_fit_or_are_told_apart(given_values: list[int | None]) -> None:
    fits = [v is None or -(2**31) <= v < 2**31 for v in given_values]
    expected = [v if ok else None for v, ok in zip(given_values, fits, strict=True)]
    bad = [row for row, ok in enumerate(fits) if not ok]
    texts = [None if v is None else str(v) for v in given_values]
    for column, rows in (from_json(INT, given_values), from_text(INT, texts)):
        assert (column.to_pylist(), rows) == (expected, bad)


@given(st.lists(st.floats(allow_nan=False)))
def test_real_numbers_survive_as_text(numbers: list[float]) -> None:
    column, bad = from_text(REAL, [repr(n) for n in numbers])
    assert (column.to_pylist(), bad) == (numbers, [])


moments = st.integers(-(2**31), 2**33).map(lambda s: datetime.fromtimestamp(s, UTC))
notations = st.sampled_from([lambda m: m.isoformat(), lambda m: m.isoformat(" ").replace("+00:00", "Z"),
                             lambda m: str(round(m.timestamp() * 1000))])  # fmt: skip


@given(st.lists(st.tuples(moments, notations)))
def test_a_column_of_times_may_mix_notations(cells: list[tuple[datetime, Any]]) -> None:
    texts = [notation(moment) for moment, notation in cells]
    for column, bad in (from_text(MOMENT, texts), from_json(MOMENT, texts)):
        assert ([m.timestamp() for m in column.to_pylist()], bad) == ([m.timestamp() for m, _ in cells], [])


@given(st.lists(st.text(max_size=8)))
def test_no_text_breaks_a_column_and_each_cell_has_one_fate(texts: list[str]) -> None:
    kinds = (pa.bool_(), pa.date32(), pa.decimal128(10, 2), pa.time32("ms"), pa.binary())
    for field in (LONG, REAL, MOMENT, *(pa.field("x", kind) for kind in kinds)):
        column, bad = from_text(field, texts)
        assert {row for row, value in enumerate(column.to_pylist()) if value is None} == set(bad)
