"""Sources: event time, tombstones, garbage, and what a dead letter keeps of a record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampipe import Processor
from streampipe.errors import TopologyError
from streampipe.records import Headers, batch_of
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro
from tests.operators.support import FOLDER, column, driver, reasons, rows, run

DAY = 86_400_000


def logical(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


@pytest.mark.parametrize(
    ("kind", "values", "times"),
    [
        ("int", [0, 5, -1], [0, 5, None]),
        ("long", [7, None, -(2**62)], [7, None, None]),
        (logical("int", "date"), [0, 2, -1], [0, 2 * DAY, None]),
        (logical("long", "timestamp-millis"), [1, -1, None], [1, None, None]),
        (logical("long", "timestamp-micros"), [1_999, 0, -1], [1, 0, None]),
    ],
    ids=["int", "long", "date", "millis", "micros"],
)
def test_event_time_comes_from_its_column_and_null_or_negative_is_a_dead_letter(
    kind: Any, values: list[Any], times: list[Any]
) -> None:
    physical = kind if isinstance(kind, str) else kind["type"]
    folder = FOLDER / f"event-time-{values}"
    p = Processor("p")
    p.source("in", event_time="t", schema=avro("In", t=["null", kind])).to("out")
    d = Driver(p, {"in": avro("In", t=["null", physical])}, folder)
    result = d.feed([Event("in", None, {"t": v}, 99) for v in values]).finish()
    assert [time for _, _, time in result.records["out"]] == [t for t in times if t is not None]
    assert reasons(result) == [(i, "in", "validation") for i, t in enumerate(times) if t is None]
    assert {told["rule"] for _, _, told in result.dead} <= {"event_time"}


@pytest.mark.parametrize(("event_time", "message"), [("nope", "not among k, x, y, s"), ("s", "must be a timestamp")])
def test_an_event_time_that_is_none_is_refused_at_start(event_time: str, message: str) -> None:
    p = Processor("p")
    p.source("in", event_time=event_time).to("out")
    with pytest.raises(TopologyError, match=message):
        Driver(p, {"in": avro("In", k="string", x="int", y="double", s="string")}, FOLDER / "no-event-time")


def test_tombstones_are_dropped() -> None:
    result = run(lambda s: s.to("out"), [*rows(1), Event("in", "k", None, 5), *rows(2)])
    assert column(result, "x") == [1, 2]
    assert +result.outcomes == {"ok": 2, "dropped": 1}


def test_garbage_is_a_dead_letter_byte_for_byte_and_its_neighbours_stay_in_order() -> None:
    garbage = [b"", b"\x07x", b"\x00\x00\x00\x00\x63unknown id", b"\x00\x00\x00\x00\x01\xff\xff"]
    events = [e for i, g in enumerate(garbage) for e in (*rows(i), Event("in", f"key{i}", g, 1))]
    result = run(lambda s: s.to("out"), events)
    assert column(result, "x") == [0, 1, 2, 3]
    assert [(k, v) for k, v, _ in result.dead] == [(f"key{i}".encode(), g) for i, g in enumerate(garbage)]
    assert [told["class"] for _, _, told in result.dead] == [
        "deserialization", "deserialization", "schema", "deserialization",
    ]  # fmt: skip
    assert [told.get("schema.id") for _, _, told in result.dead][2:] == ["99", "1"]


def test_a_dead_letter_keeps_its_headers_byte_for_byte_and_its_time() -> None:
    d = driver(lambda s: s.to("out"))
    [record] = d.encode([Event("in", "k", b"garbage", 1234)])
    headers: Headers = [("a", b"\x00\xff"), ("a", None), ("", b"")]
    d.task.process([batch_of([record._replace(headers=headers)])])
    [batch] = d.task.drain().dead_letters
    assert batch.headers is not None
    assert list(batch.headers[0])[:3] == headers
    assert all(name.startswith("__streampipe.errors.") for name, _ in list(batch.headers[0])[3:])
    assert batch.timestamps == [1234]
    assert batch.topic == "p-dlq"


def test_headers_that_cannot_be_read_are_left_out_and_that_is_said() -> None:
    d = driver(lambda s: s.to("out"))
    batch = batch_of(d.encode([Event("in", "k", b"garbage", 1)]))

    def unreadable(row: int) -> Headers:
        raise ValueError("no UTF-8")

    batch.headers = unreadable
    d.task.process([batch])
    d.collect(d.task.drain())
    assert "not UTF-8" in d.result.dead[0][2]["headers"]


def test_two_sources_of_one_topic_share_the_fates_of_its_records() -> None:
    p = Processor("p")
    p.source("in", name="one").to("out")
    p.source("in", name="two").to("more")
    d = Driver(p, {"in": avro("In", x="int")}, FOLDER / "two-sources")
    result = d.feed([Event("in", None, {"x": 1}, 0), Event("in", None, b"garbage", 0)]).finish()
    assert column(result, "x") == column(result, "x", "more") == [1]
    assert +result.outcomes == {"ok": 1, "dlq": 1}
    assert len(result.dead) == 1
    assert np.sum(list(result.offsets.values())) == 2
