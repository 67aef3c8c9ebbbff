"""Windows give what Kafka Streams gave for the same records, a commit after each of them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from streampipe import Hopping, Processor, Session, Sliding, Tumbling, agg
from streampipe.windows import Window
from tests.operators.driver import Driver, Event
from tests.operators.kafka_streams import cases
from tests.operators.pipelines import avro
from tests.operators.window_oracle import oracle

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
OPS = ("tumbling", "hopping", "sliding", "session")
SCHEMAS = {"a": avro("A", k="string", v="string")}

Told = tuple[int, str, int, int, tuple[str, ...] | None, int]
"""Number of the input, key, start, end, values (None: no such window any more), timestamp."""


def window(case: dict[str, Any]) -> Window:
    grace = case["grace"]
    match case["op"]:
        case "tumbling":
            return Tumbling(case["size"], grace=grace)
        case "hopping":
            return Hopping(case["size"], advance=case["advance"], grace=grace)
        case "sliding":
            return Sliding(case["size"], grace=grace)
        case _:
            return Session(case["gap"], grace=grace)


def ours(case: dict[str, Any], every: int = 1) -> list[Told]:
    """What comes out, with a commit after every so many records."""
    p = Processor(f"{case['op']}-{case['emit']}")
    p.source("a", key="k").window(window(case), emit=case["emit"]).agg(v=agg.collect("v")).to("out")
    driver = Driver(p, SCHEMAS, FOLDER / case["op"] / case["emit"])
    told: list[Told] = []
    events = [Event("a", key, {"k": key, "v": value}, time) for _, key, value, time in case["input"]]
    for n in range(0, len(events), every):
        driver.feed(events[n : n + every]).finish()
        for _, e, time in driver.result.records.pop("out", []):
            start, end = (round(e[bound].timestamp() * 1000) for bound in ("window_start", "window_end"))
            values = None if e.get("retracted") else tuple(e["v"])
            told.append((min(n + every, len(events)) - 1, e["k"], start, end, values, time))
    assert len(driver.result.dead) == driver.result.outcomes["dlq"]
    return told


def theirs(case: dict[str, Any]) -> list[Told]:
    told = []
    for n, windowed, value, time in case["output"]:
        key, start, end = windowed.split("@")
        told.append((n, key, int(start), int(end), None if value is None else tuple(value.split(",")), time))
    return told


def net(told: Iterable[Told], *, ordered: bool = True) -> dict[tuple[int, str, int, int], Any]:
    """What was told last of each window after each record."""
    return {
        (n, key, start, end): (None if values is None else values if ordered else tuple(sorted(values)), time)
        for n, key, start, end, values, time in told
    }


def named(op: str, *emits: str) -> list[Any]:
    return [pytest.param(c, id=f"{op}-{c['id']}") for c in cases(op) if not emits or c["emit"] in emits]


@pytest.mark.parametrize("case", [*named("tumbling"), *named("hopping"), *named("sliding", "updates")])
def test_windows_of_time_are_those_of_kafka_streams(case: dict[str, Any]) -> None:
    told = ours(case)
    assert net(told) == net(theirs(case))
    assert len(told) == len(net(told))


@pytest.mark.parametrize("case", named("session", "updates"))
def test_updated_sessions_are_those_of_kafka_streams(case: dict[str, Any]) -> None:
    told = ours(case)
    assert net(told, ordered=False) == net(theirs(case), ordered=False)
    assert len(told) == len(net(told))


def last(told: Iterable[Told], *, ordered: bool = True) -> dict[tuple[str, int, int], Any]:
    """What was told last of each window."""
    return {at[1:]: what for at, what in net(told, ordered=ordered).items()}


@pytest.mark.parametrize("case", named("sliding", "final"))
def test_final_sliding_windows_say_once_what_kafka_streams_said_last(case: dict[str, Any]) -> None:
    # Kafka Streams' suppression lets a window go at end + grace, which is still inside the window
    told = ours(case)
    times = [time for *_, time in case["input"]]
    closed = {at: what for at, what in last(theirs(case)).items() if at[2] + case["grace"] < max(times)}
    assert last(told) == closed
    assert len(told) == len(closed)
    for n, _, _, end, _, _ in told:
        assert max(times[: n + 1]) > end + case["grace"] >= max(times[:n])


@pytest.mark.parametrize("case", named("session", "final"))
def test_final_sessions_are_those_of_kafka_streams_unless_it_took_one_back(case: dict[str, Any]) -> None:
    # its suppression lets a session go at end + grace, though records may extend it for a gap longer
    told = ours(case)
    by_definition = oracle(window(case))
    for row in numbered(case):
        by_definition.take(row)
    values = [value for _, _, value, _ in case["input"]]
    expected = {at: tuple(values[n] for n in numbers) for at, numbers in by_definition.said.items()}
    assert {at: what for at, (what, _) in last(told).items()} == expected
    assert len(told) == len(expected)
    theirs_last = last(theirs(case), ordered=False)
    early = [at for at in theirs_last if any(meets(at, other, case["gap"]) for other in theirs_last if other != at)]
    last_time = max(time for *_, time in case["input"])
    closed = {at: what for at, what in theirs_last.items() if at[2] + case["gap"] + case["grace"] < last_time}
    if not early:
        assert last(told, ordered=False) == closed


def meets(one: tuple[str, int, int], other: tuple[str, int, int], gap: int) -> bool:
    return one[0] == other[0] and one[1] <= other[2] + gap and other[1] <= one[2] + gap


def numbered(case: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(key, n, time) for n, (_, key, _, time) in enumerate(case["input"])]


@pytest.mark.parametrize("case", [c for op in OPS for c in named(op, "updates")])
def test_the_definition_that_all_else_is_held_to_is_that_of_kafka_streams(case: dict[str, Any]) -> None:
    by_definition = oracle(window(case), final=False)
    values = [value for _, _, value, _ in case["input"]]
    said: dict[Any, Any] = {}
    told = {n: {} for n in range(len(values))}  # type: dict[int, dict[Any, Any]]
    for n, key, start, end, content, _ in theirs(case):
        told[n][key, start, end] = None if content is None else tuple(sorted(content))
    for n, row in enumerate(numbered(case)):
        by_definition.take(row)
        said.update(told[n])
        assert {at: tuple(sorted(values[i] for i in numbers)) for at, numbers in by_definition.said.items()} == {
            at: content for at, content in said.items() if content is not None
        }
