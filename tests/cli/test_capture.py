"""A stretch of topics in a file, and a processor that consumes it as it would have consumed the topics."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.brokers.opening import open_broker
from streampipe.errors import ConfigError
from streampipe.observe.reading import read_between
from streampipe.observe.slices import in_time_order, read_slice, write_slice
from streampipe.records import Headers, ProduceBatch, Record, RecordBatch
from streampipe.runtime.load import load_processor
from streampipe.testing import TopologyTestDriver, assert_golden
from tests.cli.conftest import Cli

BROKEN = [b"garbage", b"\0\0\0\0\x63gone", None]


@pytest.fixture
def broken(clicks: Cli) -> Cli:
    """The topic has records that are no clicks, with headers and keys that are no text."""
    broker = open_broker("local:.streampipe/broker.db", {})
    producer = broker.producer()
    headers = [(("h", b"\xff"), ("text", b"x"), ("none", None))] * 3
    producer.produce(ProduceBatch("clicks", [b"\xfe", b"k", None], BROKEN, [1, 2, 3], [0, 0, 1], headers))
    producer.flush()
    producer.close()
    return clicks


def test_a_driver_that_plays_a_slice_gives_what_a_worker_gives(broken: Cli) -> None:
    captured = broken("capture", "clicks", "--out", "slice.jsonl.gz", "--json")
    assert captured.json == {"file": "slice.jsonl.gz", "records": 13, "topics": ["clicks"]}
    assert broken("run", "app.py", "--until-caught-up", "--close-windows").code == 0
    worked = sorted(str(line["value"]) for line in broken("consume", "clicks-hourly", "--json").lines)
    dead = {(letter["key"], letter["class"]) for letter in broken("dlq", "list", "counter-dlq", "--json").json}
    with TopologyTestDriver(load_processor("app.py"), partitions=2) as driver:
        assert driver.play("slice.jsonl.gz") == 13
        driver.close_windows()
        played = driver.events("clicks-hourly")
        letters = driver.dead_letters()
    assert worked == sorted(str(json.loads(json.dumps(e, default=_iso))) for e in played)
    assert len(letters) == len(dead)


def _iso(value: Any) -> str:
    return str(value.isoformat().replace("+00:00", "Z"))


def test_headers_that_cannot_be_read_are_left_out_and_said(broken: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(row: int) -> Headers:
        raise ValueError(f"a header's name is not UTF-8: {row}")

    def spoiled(*given: Any) -> Iterator[RecordBatch]:
        return (replace(batch, headers=no_name) for batch in read_between(*given))

    monkeypatch.setattr("streampipe.cli.capture.read_between", spoiled)
    captured = broken("capture", "clicks", "--out", "slice.jsonl")
    assert captured.code == 0
    assert "13 records without their headers, since a header's name is not UTF-8: clicks[" in " ".join(
        captured.err.split()
    )
    assert {record.headers for record in read_slice(Path("slice.jsonl")).records} == {()}


def test_a_slice_may_be_a_part(clicks: Cli) -> None:
    assert clicks("capture", "clicks", "--max", "3", "--out", "some.jsonl", "--json").json["records"] == 3
    part = ("capture", "clicks", "--from", "2024-05-01T10:03", "--until", "2024-05-01T10:05", "--out", "part.jsonl")
    assert clicks(*part).code == 0
    assert {r.timestamp % 3_600_000 // 60_000 for r in read_slice(Path("part.jsonl")).records} == {3, 4}


bytes_ = st.none() | st.binary(max_size=8) | st.text(max_size=4).map(str.encode)
records_ = st.lists(
    st.builds(
        Record, st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 9), st.integers(-1, 9), bytes_, bytes_,
        st.lists(st.tuples(st.text(max_size=3), bytes_), max_size=2).map(tuple),
    ),
    max_size=8,
)  # fmt: skip


@given(records=records_)
def test_what_is_read_is_what_was_written_with_the_schemas_that_are_known(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    path = tmp_path_factory.mktemp("slices") / "slice.jsonl"
    framed = [r._replace(value=b"\0\0\0\0\x07" + (r.value or b"")) for r in records]
    assert write_slice(path, framed, lambda schema_id: f"schema {schema_id}") == len(records)
    kept = read_slice(path)
    assert kept.records == in_time_order(framed)
    assert kept.schemas == ({7: "schema 7"} if records else {})


@given(records=records_)
def test_partitions_keep_their_order_and_times_ascend_where_they_let_them(records: list[Record]) -> None:
    ordered = in_time_order(records)
    for topic in "ab":
        for partition in (0, 1):
            mine = [r for r in records if (r.topic, r.partition) == (topic, partition)]
            assert [r for r in ordered if (r.topic, r.partition) == (topic, partition)] == mine
    if all(a.timestamp <= b.timestamp for a, b in pairwise(records)):
        assert ordered == records


@pytest.mark.parametrize("line", ["{}", "no json", '{"topic": "a", "partition": 0}', '{"schema": "x", "text": ""}'])
def test_a_line_that_is_none_of_a_slice_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "slice.jsonl"
    path.write_text(f'{{"schema": 1, "text": "x"}}\n{line}\n')
    with pytest.raises(ConfigError, match=r"slice.jsonl:2 is no line of a slice"):
        read_slice(path)


def test_files_that_cannot_be_are_refused(clicks: Cli, tmp_path: Path) -> None:
    refused = clicks("capture", "clicks", "--out", "nowhere/slice.jsonl")
    assert (refused.code, "folder nowhere does not exist" in refused.err) == (3, True)
    assert clicks("capture", "nope", "--out", "slice.jsonl").code == 5
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_slice(Path("none.jsonl"))
    whole = gzip.compress(b'{"schema": 1, "text": "x"}\n' * 100)
    for broken in (b"plain", whole[: len(whole) // 2], whole[:12] + b"\xff" * 20):
        Path("not.gz").write_bytes(broken)
        with pytest.raises(ConfigError, match="cannot be read"):
            read_slice(Path("not.gz"))
    with gzip.open("many.jsonl.gz", "wb") as file:
        file.write(b'{"topic":"clicks","partition":4,"offset":0,"timestamp":1,"key":null,"value":null}\n')
    with (
        TopologyTestDriver(load_processor("app.py")) as driver,
        pytest.raises(ConfigError, match=r"records of clicks\[4\]; give the driver partitions=5"),
    ):
        driver.play("many.jsonl.gz")


def test_a_golden_file_is_compared_and_written_on_demand(
    clicks: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks("capture", "clicks", "--out", "slice.jsonl")
    with TopologyTestDriver(load_processor("app.py"), partitions=2) as driver:
        driver.play("slice.jsonl")
        outputs = driver.read("good-clicks")
    golden = tmp_path / "golden" / "good.jsonl"
    with pytest.raises(AssertionError, match="does not exist; once it is right, run again with STREAMPIPE_UPDATE_GOLD"):
        assert_golden(golden, outputs)
    monkeypatch.setenv("STREAMPIPE_UPDATE_GOLDEN", "1")
    assert_golden(golden, outputs)
    monkeypatch.delenv("STREAMPIPE_UPDATE_GOLDEN")
    assert_golden(golden, outputs)
    assert json.loads(golden.read_text().splitlines()[0])["event"]["user"] in "adb"
    with pytest.raises(AssertionError, match=r"(?s)not what golden file.*\n-\{.*"):
        assert_golden(golden, outputs[1:])
