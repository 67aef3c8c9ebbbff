"""Invariant B: how records are cut into batches must never change any result."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streampipe import Processor
from tests.operators.driver import Driver, Event, Result
from tests.operators.pipelines import PIPELINES, SCHEMAS

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

keys = st.sampled_from(["a", "b", "c", "d"])
numbers = st.none() | st.integers(-10, 60)
doubles = st.none() | st.floats(-1e3, 1e3)
values = st.builds(lambda k, x, y: {"k": k, "x": x, "y": y}, keys, numbers, doubles)


def partition(key: str | None) -> int:
    return ord(key or "z") % 4


@st.composite
def inputs(draw: Any) -> list[Event]:
    """Records of a stream and a table, some broken, some tombstones, event time going to and fro."""
    events = []
    for _ in range(draw(st.integers(1, 30))):
        time = draw(st.integers(0, 300))
        if draw(st.integers(0, 4)) == 0:
            key = draw(keys)
            row = draw(st.none() | st.just({"k": key, "label": draw(st.text(max_size=3))}))
            events.append(Event("rows", key, row, time, partition(key)))
            continue
        value = draw(values | st.sampled_from([None, b"", b"\x00\x00\x00\x00\x01garbage", b"\x07wrong"]))
        key = value["k"] if isinstance(value, dict) else draw(keys)
        events.append(Event("in", key, value, time, partition(key)))
    return events


def run(make: Callable[[], Processor], events: list[Event], size: int | None) -> Result:
    processor = make()
    topics = {n.topic for n in processor.topology.nodes if hasattr(n, "topic")}
    driver = Driver(processor, SCHEMAS, FOLDER / make.__name__)
    return driver.feed((e for e in events if e.topic in topics), size).finish()


def last_told(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What was told last of each window, less what was taken back."""
    told = {str((e["k"], e.get("window_start"), e.get("window_end"))): e for e in events}
    return {at: e for at, e in told.items() if not e.get("retracted")}


def visible(result: Result, *, updates: bool) -> Any:
    """What the rule is about: records by topic and key in order (of updates the last ones), dead letters, fates."""
    records = {
        (topic, key): told  # what was told and taken back again is as if it had not been told
        for topic in result.records
        for key, events in result.by_key(topic).items()
        if (told := last_told(events) if updates else events)
    }
    dead = sorted(
        (told["partition"], int(told["offset"]), told["stage"], told["class"], key, value, sorted(told.items()))
        for key, value, told in result.dead
    )
    return records, dead, +result.outcomes, result.offsets, dict(result.changelog) if not updates else None


BETWEEN = [Event("in", "a", {"k": "a", "x": None, "y": None}, time, partition("a")) for time in (71, 102, 85)]
"""The last one makes one session of two, of which the first may have been told by then."""


@pytest.mark.parametrize("make", PIPELINES, ids=lambda f: f.__name__)
@example(events=BETWEEN, size=1)
@given(events=inputs(), size=st.sampled_from([1, 2, 7]))
@settings(max_examples=60)
def test_how_records_are_cut_into_batches_changes_no_result(
    make: Callable[[], Processor], events: list[Event], size: int
) -> None:
    updates = make.__name__.endswith("updates")
    whole = visible(run(make, events, None), updates=updates)
    cut = visible(run(make, events, size), updates=updates)
    assert cut == whole


@pytest.mark.parametrize("make", PIPELINES, ids=lambda f: f.__name__)
@given(events=inputs())
@settings(max_examples=30)
def test_every_record_meets_exactly_one_fate(make: Callable[[], Processor], events: list[Event]) -> None:
    processor = make()
    topics = {n.topic for n in processor.topology.nodes if hasattr(n, "topic")}
    fed = sum(e.topic in topics for e in events)
    result = run(make, events, None)
    looped = sum(result.outcomes.values()) - fed
    repartitioned = make.__name__ == "keyed"
    assert looped >= 0 if repartitioned else looped == 0
    assert result.outcomes["dlq"] == len({(d["topic"], d["partition"], d["offset"]) for _, _, d in result.dead})
