"""The task is pure: records in, output out, whatever clocks and networks do."""

from __future__ import annotations

import socket
import time
from typing import Any, NoReturn

import polars as pl
import pytest

from streampipe import Processor, Tumbling, agg
from streampipe.records import Record, TopicPartition, batch_of
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import PIPELINES, SCHEMAS
from tests.operators.support import FOLDER


@pytest.mark.parametrize("make", PIPELINES, ids=lambda f: f.__name__)
def test_no_operator_reads_a_clock_or_a_socket(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(make(), SCHEMAS, FOLDER / f"pure-{make.__name__}")
    inputs = {t for s in driver.task.subtopologies for t in s.streams + s.tables}
    events = [Event("in", "a", {"k": "a", "x": x, "y": 0.5}, 100 * x) for x in range(9)]
    events.append(Event("in", "a", b"garbage", 1))
    driver.feed([e for e in events if e.topic in inputs][:1])  # the registry may be asked for a schema once
    records = driver.encode([e for e in events if e.topic in inputs])

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a pure room asked the world")

    with monkeypatch.context() as patched:
        for name in ("time", "monotonic", "perf_counter", "time_ns", "sleep"):
            patched.setattr(time, name, refuse)
        patched.setattr(socket, "socket", refuse)
        driver.task.process([batch_of(records)])
        out = driver.task.drain()
    assert out.outcomes["in"].sum() == len(records)


def test_state_that_is_still_being_restored_is_not_opened_by_what_another_sub_topology_reads_or_by_its_silence() -> (
    None
):
    made = Processor("settling")
    source = made.source("in", key="k")
    source.to("out")
    source.filter(pl.col("x") > 0).key_by("x").window(Tumbling(50)).agg(n=agg.count()).to("counts")
    driver = Driver(made, SCHEMAS, FOLDER / "settling")
    before = [Event("in", "a", {"k": "a", "x": 1, "y": 0.5}, time) for time in range(7)]
    driver.feed(before).finish()
    [(changelog, home)] = driver.result.changelog  # the one partition that has state
    [repartition] = [t for s in driver.task.subtopologies for t in s.streams if t != "in"]
    driver.task = driver.builder.build()
    [restore] = driver.task.assign([TopicPartition("in", home), TopicPartition(repartition, home)])
    entries = driver.result.changelog[changelog, home].items()
    # the other input has records or is silent while the restore is under way, before the first entry and in the middle
    for key, value in entries:
        driver.task.advance(7, {home: 60.0}, driver.task.subtopologies[0])
        driver.task.process([batch_of(driver.encode([Event("in", None, {"k": "a", "x": -1, "y": None}, 7, home)]))])
        driver.task.restore(restore, batch_of([Record(*restore.source, 0, 0, key, value)]))
    driver.feed([Event("in", "a", {"k": "a", "x": 1, "y": 0.5}, 8, home)])
    counts = driver.finish(close_windows=True).by_key("counts").values()
    assert [event["n"] for events in counts for event in events] == [len(before) + 1]
