"""State that is larger than memory: what is left to the store alone comes back when it is asked for, or due."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Hopping, Processor, Tumbling, agg
from streampipe.errors import StateCorrupted
from streampipe.operators.joins.waiting import WaitingStep
from streampipe.operators.keyed_aggregate import KeyedAggregateStep
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.state.rocksdb import RocksStores
from streampipe.windows import Session, Sliding, Update
from tests.operators.driver import Driver, Event, Result
from tests.operators.pipelines import SCHEMAS
from tests.proof import EXAMPLES

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


TOPICS = SCHEMAS | {"other": SCHEMAS["in"]}


class Tight(MemoryStores):
    """Stores beside which a step may keep one entry in memory."""

    room: Any = 1


def aggregates() -> dict[str, Any]:
    return {"n": agg.count(), "s": agg.sum("x"), "all": agg.collect("x", limit=5)}


def _processor(shape: str) -> Processor:
    p = Processor("spill")
    stream = p.source("in", key="k")
    if shape in WAITING:
        WAITING[shape](stream, p.source("other", key="k") if shape in JOINS else None).to("out")
    else:
        SHAPES[shape](stream).agg(**aggregates()).to("out")
    return p


def _joined(how: Any, **options: Any) -> Callable[[Any, Any], Any]:
    return lambda left, right: left.join(right, on="k", how=how, prefix="o_", **options)


JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "inner join": _joined("inner", within="60ms"),
    "left join": _joined("left", within="20ms", grace="30ms", late="drop"),
    "outer join": _joined("outer", within=("10ms", "50ms"), grace="20ms"),
}
WAITING: dict[str, Callable[[Any, Any], Any]] = JOINS | {
    "deduplicate": lambda stream, _: stream.deduplicate(within="40ms", grace="30ms"),
}
"""What keeps records as they are, for a while."""
SHAPES: dict[str, Callable[[Any], Any]] = {
    "running": lambda s: s,
    "tumbling": lambda s: s.window(Tumbling("50ms")),
    "grace": lambda s: s.window(Tumbling("50ms", grace="40ms")),
    "updates": lambda s: s.window(Tumbling("50ms"), emit="updates"),
    "hopping": lambda s: s.window(Hopping("60ms", advance="20ms"), late="drop"),
    "corrected": lambda s: s.window(Tumbling("50ms"), late=Update("100ms")),
    "corrected updates": lambda s: s.window(Tumbling("50ms"), late=Update("100ms"), emit="updates"),
    "session": lambda s: s.window(Session("30ms")),
    "session, grace": lambda s: s.window(Session("20ms", grace="60ms"), late="drop"),
    "session, updates": lambda s: s.window(Session("20ms", retention="80ms"), emit="updates"),
    "session, corrected": lambda s: s.window(Session("20ms"), late=Update("100ms")),
    "sliding": lambda s: s.window(Sliding("20ms", grace="30ms")),
    "sliding, updates": lambda s: s.window(Sliding("20ms", grace="10ms"), emit="updates", late="drop"),
    "sliding, corrected": lambda s: s.window(Sliding("20ms"), late=Update("60ms")),
}
ALL = [*SHAPES, *WAITING]

events = st.lists(
    st.builds(lambda topic, k, x, t: Event(topic, k, {"k": k, "x": x, "y": None}, t, ord(k) % 2),
              st.sampled_from(["in", "other"]), st.sampled_from("abcdef"), st.integers(0, 9), st.integers(0, 400)),
    max_size=40,
)  # fmt: skip


def run(shape: str, stores: Stores, steps: list[tuple[list[Event], str]], folder: str = "one") -> Result:
    """Process, and commit after each step; then comes silence, or a start from changelog or what was kept."""
    driver = Driver(_processor(shape), TOPICS, FOLDER / shape / folder, stores)
    for some, then in steps:
        driver.feed(some if shape in JOINS else [event._replace(topic="in") for event in some])
        driver.collect(driver.task.drain())
        if then == "crash":
            driver.start()
        elif then == "silence":
            driver.task.advance(250, dict.fromkeys(range(4), 60.0))
            driver.collect(driver.task.drain())
        elif then == "hand over":
            driver.hand_over()
    return driver.finish(close_windows=shape != "running")


def told(result: Result) -> Any:
    return result.by_key("out"), result.dead, +result.outcomes, dict(result.changelog)


@pytest.mark.proof
@pytest.mark.parametrize("shape", ALL)
@given(
    steps=st.lists(st.tuples(events, st.sampled_from(["", "crash", "hand over", "silence"])), min_size=1, max_size=6)
)
@settings(max_examples=EXAMPLES // 20)
def test_how_much_memory_there_is_changes_no_result(shape: str, steps: list[tuple[list[Event], str]]) -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER) as kept:
        tight = told(run(shape, Tight(Path(kept)), steps))
    assert tight == told(run(shape, MemoryStores(), steps))


@pytest.mark.parametrize("shape", ALL)
def test_state_on_disk_gives_what_state_in_memory_gives(shape: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(7)
    steps = []
    for start in range(0, 3_000, 500):
        names = [f"k{n}" for n in chance.integers(0, 60, 200).tolist()]
        times = (start + chance.integers(0, 600, 200)).tolist()
        steps.append(([Event("in" if t % 3 else "other", k, {"k": k, "x": t % 7, "y": None}, t, int(k[1:]) % 4)
                       for k, t in zip(names, times, strict=True)],
                      {1_000: "hand over", 1_500: "crash"}.get(start, "")))  # fmt: skip
    with closing(RocksStores(tmp_path / "state", 8, tmp_path / "kept")) as stores:
        stores._kept = 10
        assert told(run(shape, stores, steps)) == told(run(shape, MemoryStores(), steps))


@pytest.mark.parametrize("shape", ["running", "tumbling", "session", "sliding"])
def test_after_a_commit_no_more_is_in_memory_than_may_be(shape: str) -> None:
    driver = Driver(_processor(shape), SCHEMAS, FOLDER / f"bound {shape}", Tight())
    for n in range(5):
        driver.feed([Event("in", f"k{i}", {"k": f"k{i}", "x": 1, "y": None}, n) for i in range(n, 20)])
        driver.collect(driver.task.drain())
        [step] = driver.task.stores.values()
        assert isinstance(step, KeyedAggregateStep)
        assert len(step._slots) <= (n + 1 if shape == "sliding" else Tight.room)  # a key's records stay together
    driver.start()
    told = driver.finish(close_windows=True).by_key("out")
    assert {key: max(event["n"] for event in events) for key, events in told.items()} == {
        b"k%d" % i: min(i + 1, 5) for i in range(20)
    }


@pytest.mark.parametrize("shape", WAITING)
def test_after_a_commit_no_more_records_wait_in_memory_than_may(shape: str) -> None:
    driver = Driver(_processor(shape), TOPICS, FOLDER / f"bound {shape}", Tight())
    for n in range(5):
        driver.feed([Event("in", f"k{i}", {"k": f"k{i}", "x": 1, "y": None}, n) for i in range(n, 20)])
        driver.collect(driver.task.drain())
        [step] = driver.task.stores.values()
        assert isinstance(step, WaitingStep)
        assert sum(len(side.held()) for side in step._sides) <= Tight.room
    if shape in JOINS:
        driver.feed([Event("other", "k7", {"k": "k7", "x": 2, "y": None}, 5)])
        assert [event["o_x"] for event in driver.finish().by_key("out")[b"k7"]] == [2] * 5


def _silent_join(keys: str, met: str) -> Driver:
    """A left join whose records are out of memory but for one, after its partition was silent for long."""
    driver = Driver(_processor("left join"), TOPICS, FOLDER / "silent", Tight())
    for topic, some in (("in", keys), ("other", met)):
        driver.feed([Event(topic, k, {"k": k, "x": 1, "y": None}, 1) for k in some]).finish()
    driver.task.advance(1_000, {0: 60.0})
    driver.finish()
    return driver


def test_what_waits_out_of_memory_goes_out_alone_after_silence() -> None:
    told = _silent_join("abcd", "c").result.by_key("out")
    assert {key: [e["o_x"] for e in events] for key, events in told.items()} == {
        b"a": [None], b"b": [None], b"c": [1], b"d": [None],
    }  # fmt: skip


def test_silence_moves_no_time_when_all_that_is_out_of_memory_has_met_somebody() -> None:
    driver = _silent_join("abcd", "abcd")
    driver.feed([Event("in", "a", {"k": "a", "x": 2, "y": None}, 2)])
    assert [event["x"] for event in driver.finish().by_key("out")[b"a"]] == [1, 2]


@pytest.mark.parametrize("shape", ["running", "tumbling"])
def test_state_of_another_shape_is_refused_before_it_is_asked_for(shape: str) -> None:
    driver = Driver(_processor(shape), SCHEMAS, FOLDER / f"shape {shape}", Tight())
    driver.feed([Event("in", "a", {"k": "a", "x": 1, "y": None}, 1)]).finish()
    p = Processor("spill")
    SHAPES[shape](p.source("in", key="k")).agg(n=agg.count()).to("other")
    other = Driver(p, SCHEMAS, FOLDER / f"shape {shape}", Tight())
    other.result.changelog = driver.result.changelog
    other.start()
    with pytest.raises(StateCorrupted, match="another shape"):
        other.feed([Event("in", "b", {"k": "b", "x": 1, "y": None}, 1)])
