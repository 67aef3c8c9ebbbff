"""Tables with a history: a record finds the row as it was at its time, as in Kafka Streams."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Processor
from streampipe.errors import TopologyError
from streampipe.operators.tables.versions import Versions, pack, put, unpack, valid_at
from streampipe.records import batch_of
from streampipe.runtime.port import OUTCOMES
from streampipe.state.memory import MemoryStores
from streampipe.testing import TopologyTestDriver
from streampipe.topology.describe import describe
from tests.operators.driver import Driver, Event
from tests.operators.kafka_streams import cases
from tests.operators.pipelines import avro
from tests.proof import EXAMPLES, patient

SCHEMAS = {name: avro(name.upper(), k="string", v="string") for name in "ab"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = tuple[str, str, str | None, int]
"""Topic (a: stream, b: table), key, value and time."""


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("versions")
    for name, text in SCHEMAS.items():
        (folder / f"{name}.avsc").write_text(text)
    return str(folder)


def looked_up(how: Any, history: Any) -> Processor:
    p = Processor("p")
    table = p.table("b", key="k", history=history)
    p.source("a", key="k").join(table, on="k", how=how, prefix="right_").to("out")
    return p


def joined(how: Any, history: Any, schemas: str) -> TopologyTestDriver:
    return TopologyTestDriver(looked_up(how, history), schemas=schemas)


def send(driver: TopologyTestDriver, row: Row) -> None:
    topic, key, value, time = row
    event = None if value is None else {"k": key, "v": value}
    driver.send(topic, event, key=key, timestamp=EPOCH + timedelta(milliseconds=time))


def told(driver: TopologyTestDriver) -> list[tuple[str, str, int]]:
    found = [(o.event or {}, (o.timestamp - EPOCH) // timedelta(milliseconds=1)) for o in driver.read("out")]
    return [(e["k"], f"{e['v']}|{e['right_v'] or 'null'}", time) for e, time in found]


@pytest.mark.parametrize(
    "case", [*cases("stream-versioned-table"), *cases("stream-table")],
    ids=lambda case: f"{case['op']}-{case['id']}-{case['how']}",
)  # fmt: skip
def test_results_are_those_of_kafka_streams_with_a_history_and_without(case: dict[str, Any], schemas: str) -> None:
    with joined(case["how"], case.get("history"), schemas) as driver:
        for number, row in enumerate(case["input"]):
            send(driver, tuple(row))
            assert told(driver) == [tuple(out) for n, *out in case["output"] if n == number]


def by_definition(rows: Sequence[Row], history: int) -> list[tuple[str, str, int]]:
    """Every version for ever, and the rules of what is too old."""
    held: dict[str, dict[int, str | None]] = {"x": {}, "y": {}}
    now, out = -(10**9), []
    for topic, key, value, time in rows:
        if topic == "b":
            now = max(now, time)
            if time >= now - history:
                held[key][time] = value
            continue
        versions, found = held[key], None
        if versions and max(versions) <= time:
            found = versions[max(versions)]
        elif time >= now - history and any(t <= time for t in versions):
            found = versions[max(t for t in versions if t <= time)]
        out.append((key, f"{value}|{found or 'null'}", time))
    return out


rows_ = st.lists(
    st.one_of(
        st.tuples(st.just("a"), st.sampled_from("xy"), st.just("s"), st.integers(0, 40)),
        st.tuples(st.just("b"), st.sampled_from("xy"), st.none() | st.sampled_from("123"), st.integers(0, 40)),
    ),
    max_size=40,
)


@pytest.mark.proof
@patient
@given(rows=rows_, history=st.integers(0, 30), data=st.data())
@settings(max_examples=EXAMPLES // 2)
def test_a_record_finds_what_was_valid_at_its_time_and_no_crash_changes_that(
    rows: list[Row], history: int, data: Any, schemas: str
) -> None:
    with joined("left", history, schemas) as driver:
        for row in rows:
            send(driver, row)
            if data.draw(st.booleans()):
                driver.restart()
        assert told(driver) == by_definition(rows, history)


@pytest.mark.proof
@patient
@given(rows=rows_, history=st.integers(0, 30), data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_a_table_that_was_kept_goes_on_with_all_its_versions(
    rows: list[Row], history: int, data: Any, schemas: str
) -> None:
    with tempfile.TemporaryDirectory() as kept:
        driver = Driver(looked_up("left", history), SCHEMAS, Path(schemas) / "kept", MemoryStores(Path(kept)))
        for topic, key, value, time in rows:
            driver.feed([Event(topic, key, None if value is None else {"k": key, "v": value}, time)])
            if data.draw(st.booleans()):
                driver.collect(driver.task.drain())
                driver.hand_over()
        out = driver.finish().records["out"]
    assert [(e["k"], f"{e['v']}|{e['right_v'] or 'null'}", at) for _, e, at in out] == by_definition(rows, history)


def test_what_was_kept_of_another_history_is_not_used(schemas: str, tmp_path: Path) -> None:
    def driver(history: int) -> Driver:
        return Driver(looked_up("left", history), SCHEMAS, Path(schemas) / "other", MemoryStores(tmp_path))

    def found(history: int) -> list[str | None]:
        later = driver(history)
        later.start(kept=True)
        later.feed([Event("a", "x", {"k": "x", "v": "s"}, 10)])
        return [event["right_v"] for _, event, _ in later.finish().records["out"]]

    driver(1_000).feed([Event("b", "x", {"k": "x", "v": "one"}, 10)]).hand_over()
    assert found(1_000) == ["one"]
    assert found(2_000) == [None]


def test_versions_of_one_batch_are_all_kept_and_shown_with_their_times(schemas: str) -> None:
    with joined("inner", "1s", schemas) as driver:
        send(driver, ("b", "x", "one", 10))
        send(driver, ("b", "x", None, 20))
        send(driver, ("b", "x", "two", 30))
        assert [(e["key"], e["columns"]["v"], e["timestamp"]) for e in driver.state("b")] == [
            (b"x", "one", 10), (b"x", "two", 30)
        ]  # fmt: skip
        for time in (15, 25, 35):
            send(driver, ("a", "x", "s", time))
        assert told(driver) == [("x", "s|one", 15), ("x", "s|two", 35)]


def test_a_version_older_than_the_history_is_none(schemas: str) -> None:
    with joined("left", 10, schemas) as driver:
        send(driver, ("b", "x", "new", 100))
        send(driver, ("b", "x", "old", 89))
        send(driver, ("a", "x", "s", 95))
        assert told(driver) == [("x", "s|null", 95)]


versions_ = st.lists(st.tuples(st.integers(-5, 50), st.none() | st.binary(max_size=4)), max_size=12)


@pytest.mark.proof
@patient
@given(given_=versions_, asked=st.integers(-10, 60), history=st.integers(0, 60))
@settings(max_examples=EXAMPLES // 2)
def test_what_is_forgotten_is_never_asked_for(given_: Versions, asked: int, history: int) -> None:
    kept: Versions = []
    every: dict[int, bytes | None] = {}
    now = -(10**9)
    for time, value in given_:
        now = max(now, time)
        if time >= now - history:
            put(kept, time, value, now - history)
            every[time] = value
    assert unpack(pack(kept)) == kept == sorted(kept, key=lambda version: version[0])
    whole: Versions = sorted(every.items())
    assert valid_at(kept, asked, now - history) == valid_at(whole, asked, now - history)
    assert all(time > now - history for time, _ in kept[1:])


def test_it_is_described_and_what_it_cannot_be_is_refused() -> None:
    p = Processor("p")
    table = p.table("b", key="k", history="1d")
    p.source("a", key="k").join(table, on="k").to("out")
    assert "b: table b by k, history 86400000 ms" in describe(p.topology)
    with pytest.raises(TopologyError, match="'b' has a history, which streams can join only"):
        p.table("c", key="k").join(table)
    with pytest.raises(TopologyError, match="must not be negative"):
        p.table("d", key="k", history=-1)


def test_a_change_older_than_the_history_is_dropped_and_counted(schemas: str) -> None:
    driver = Driver(looked_up("inner", 10), SCHEMAS, Path(schemas) / "driver")
    changes = [Event("b", "x", {"k": "x", "v": value}, time) for value, time in (("new", 99), ("old", 88))]
    driver.task.process([batch_of(driver.encode(changes))])
    out = driver.task.drain()
    assert out.late_drops == {"b": 1}
    outcomes = dict(zip(OUTCOMES, out.outcomes["b"].tolist(), strict=True))
    assert outcomes == {"filtered": 0, "dropped": 1, "ok": 1, "dlq": 0}
