"""Rules that other engines broke on the very data of our benchmarks: one direct test for each."""

from __future__ import annotations

import sys
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from benchmarks.contestants import contestants
from benchmarks.ratios import COMPARISONS
from streampipe import Hopping, Processor, Session, Sliding, Tumbling, agg
from streampipe.testing import TopologyTestDriver
from streampipe.windows import Window
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import SCHEMAS

HOUR, DAY = 3_600_000, 86_400_000
START = datetime(2013, 1, 1, tzinfo=UTC)
START_MS = round(START.timestamp() * 1000)
KINDS: list[Window] = [Tumbling(HOUR), Hopping(HOUR, advance=HOUR // 6), Sliding(HOUR), Session(HOUR)]
kinds = pytest.mark.parametrize("window", KINDS, ids=lambda w: type(w).__name__.lower())


def counted(window: Window, **options: Any) -> Processor:
    p = Processor("p")
    p.source("in", key="k").window(window, **options).agg(n=agg.count()).to("out")
    return p


def event(key: str, ms: int) -> Event:
    return Event("in", key, {"k": key, "x": None, "y": None}, START_MS + ms)


@kinds
def test_nothing_about_windows_reads_the_wall_clock_in_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: Window
) -> None:
    # a clean-up by the wall clock deletes windows of 2013 while they are open
    driver = Driver(counted(window), SCHEMAS, tmp_path)

    def no_clock() -> NoReturn:
        raise AssertionError("the wall clock was read")

    for clock in ("time", "time_ns"):
        monkeypatch.setattr(time, clock, no_clock)
    driver.feed([event("a", 0)]).finish()
    driver.start()
    driver.feed([event("a", 1)]).finish(close_windows=True)
    assert max(e["n"] for _, e, _ in driver.result.records["out"]) == 2
    assert not driver.result.dead


@pytest.fixture
def schemas(tmp_path: Path) -> str:
    (tmp_path / "in.avsc").write_text(SCHEMAS["in"])
    return str(tmp_path)


@kinds
def test_a_record_is_late_by_other_records_times_or_the_declared_idle_time_alone(schemas: str, window: Window) -> None:
    # an event clock that follows the wall clock calls equal times of a later batch late
    row = {"k": "a", "x": None, "y": None}
    with TopologyTestDriver(counted(window, idle_after="10m"), schemas=schemas, now=START) as driver:
        for _ in range(3):
            driver.send("in", row, timestamp=START)
            driver.advance("9m59s")
        assert driver.events("out") == []
        driver.send("in", row, timestamp=START)
        assert driver.dead_letters() == []
        driver.advance("3h")
        assert max(e["n"] for e in driver.events("out") if e) == 4
        driver.send("in", row, timestamp=START)
        assert [letter.errors["class"] for letter in driver.dead_letters()] == ["late"]


@kinds
def test_the_last_windows_of_a_finished_input_close_by_choice_and_each_once(schemas: str, window: Window) -> None:
    # who waits for the next record for ever leaves the windows of the last ones open
    keys = [f"key-{n}" for n in range(12)]
    rows = [{"k": key, "x": None, "y": None} for key in keys]
    with TopologyTestDriver(counted(window), schemas=schemas, now=START) as driver:
        driver.send("in", *rows, timestamp=START)
        driver.advance("29s")
        assert driver.events("out") == []
        driver.close_windows()
        windows_each = 6 if isinstance(window, Hopping) else 1
        assert sorted(e["k"] for e in driver.events("out") if e) == sorted(keys * windows_each)
        driver.close_windows()
        assert driver.events("out") == []


def work(driver: Driver, every_ms: int, count: int = 60) -> tuple[int, int]:
    """Calls of functions, and bytes at most in use, that records so far from each other take."""
    batches = [[event("a", (first + n) * every_ms) for n in range(5)] for first in range(0, count, 5)]
    calls = 0

    def counting(_frame: Any, kind: str, _argument: Any) -> None:
        nonlocal calls
        calls += kind in ("call", "c_call")

    tracemalloc.start()
    sys.setprofile(counting)
    try:
        for batch in batches:
            driver.feed(batch).finish()
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert not driver.result.dead
    return calls, peak


@kinds
def test_a_replay_costs_the_same_however_fast_event_time_moves(tmp_path: Path, window: Window) -> None:
    # a store of segments of time opens and closes one for each half hour that passes, whether or not it has records
    work(Driver(counted(window), SCHEMAS, tmp_path), 2 * HOUR)  # what is done once is done
    calls, peak = work(Driver(counted(window), SCHEMAS, tmp_path), 2 * HOUR)
    fast_calls, fast_peak = work(Driver(counted(window), SCHEMAS, tmp_path), 365 * DAY)
    assert fast_calls < 1.05 * calls
    assert fast_peak < 1.2 * peak + 50_000


def test_what_a_second_worker_gains_is_measured_and_said() -> None:
    of_two = {(c.key.partition(":")[0], c.name) for c in contestants(workers2=True) if "2 workers" in c.name}
    assert of_two
    report = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    for job, name in of_two:
        assert any((c.job, c.name, c.over) == (job, name, "streampipe") for c in COMPARISONS)
        assert f"| ({job}) {name} / streampipe |" in report
