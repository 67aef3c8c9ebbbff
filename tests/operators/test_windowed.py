"""Tumbling windows against a brute force that goes a record at a time, and the rules of closing, late and restart."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Processor, Tumbling, agg
from streampipe.errors import StateCorrupted, TopologyError
from streampipe.operators.accumulators.quantile import bucket_value, buckets
from tests.operators.driver import Driver, Event, Result
from tests.operators.pipelines import SCHEMAS, windowed

SIZE = 50
FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def event(key: str, x: int | None, time: int, y: float | None = None, partition: int | None = None) -> Event:
    return Event("in", key, {"k": key, "x": x, "y": y}, time, ord(key) % 4 if partition is None else partition)


def oracle(events: list[Event], grace: int) -> tuple[list[dict[str, Any]], int]:
    """Closed windows in order of closing, and the number of late records, by definition."""
    stream_time: dict[int, int] = defaultdict(lambda: -(10**9))
    windows: dict[tuple[int, str, int], list[dict[str, Any]]] = defaultdict(list)
    closed: list[dict[str, Any]] = []
    late = 0
    for e in events:
        stream_time[e.partition] = now = max(stream_time[e.partition], e.timestamp)
        start = e.timestamp // SIZE * SIZE
        if start + SIZE + grace <= now:
            late += 1
        else:
            assert isinstance(e.value, dict)
            windows[e.partition, e.key or "", start].append(e.value)
        due = [w for w in windows if w[0] == e.partition and w[2] + SIZE + grace <= now]
        closed += [answer(w, windows.pop(w)) for w in sorted(due, key=lambda w: (w[2], w[1]))]
    return closed, late


def answer(window: tuple[int, str, int], values: list[dict[str, Any]]) -> dict[str, Any]:
    xs = [v["x"] for v in values if v["x"] is not None]
    ys = [v["y"] for v in values if v["y"] is not None]
    total = 0.0
    for y in ys:
        total += y
    return {
        "k": window[1], "start": window[2], "n": len(values), "xs": len(xs), "total": sum(xs), "ys": total,
        "mean": total / len(ys) if ys else None, "low": min(xs, default=None), "high": max(ys, default=None),
        "rank": sorted(ys)[int(0.9 * (len(ys) - 1))] if ys else None,
    }  # fmt: skip


def check(got: dict[str, Any], want: dict[str, Any]) -> None:
    start = int(got["window_start"].timestamp() * 1000)
    assert (got["k"], start) == (want["k"], want["start"])
    assert int(got["window_end"].timestamp() * 1000) == start + SIZE
    for name in ("n", "xs", "total", "ys", "mean", "low", "high"):
        assert got[name] == want[name], name  # floats to the last digit: sums go in order
    if want["rank"] is None:
        assert got["p90"] is None
    else:
        assert math.isclose(got["p90"], want["rank"], rel_tol=0.01, abs_tol=1e-9)


events = st.lists(
    st.builds(
        event, st.sampled_from("abcd"), st.none() | st.integers(-5, 60), st.integers(0, 400),
        st.none() | st.floats(-1e6, 1e6),
    ),
    max_size=40,
)  # fmt: skip


@given(events=events, grace=st.sampled_from([0, 20, 100]), size=st.sampled_from([1, 3, None]))
@settings(max_examples=200)
def test_final_windows_equal_the_brute_force(events: list[Event], grace: int, size: int | None) -> None:
    driver = Driver(windowed(grace=grace), SCHEMAS, FOLDER)
    result = driver.feed(events, size).finish()
    closed, late = oracle(events, grace)
    # partitions are independent, so only the order within one is a rule
    got = defaultdict(list)
    for key, value, _ in result.records["out"]:
        got[ord((key or b"?").decode()) % 4].append(value)
    want = defaultdict(list)
    for window in closed:
        want[ord(window["k"]) % 4].append(window)
    assert {p: len(w) for p, w in got.items()} == {p: len(w) for p, w in want.items()}
    for p in want:
        for a, b in zip(got[p], want[p], strict=True):
            check(a, b)
    assert len(result.dead) == late == result.outcomes["dlq"]
    assert {d["class"] for _, _, d in result.dead} <= {"late"}


@given(events=events, cut=st.integers(0, 40), emit=st.sampled_from(["final", "updates"]))
@settings(max_examples=100)
def test_a_restart_with_restored_state_changes_no_result(events: list[Event], cut: int, emit: str) -> None:
    def run(restart: bool) -> Result:
        driver = Driver(windowed(emit), SCHEMAS, FOLDER)
        driver.feed(events[:cut])
        driver.finish()
        if restart:
            driver.start()
        driver.feed(events[cut:])
        return driver.finish(close_windows=True)

    stopped, ran = run(True), run(False)
    assert stopped.by_key("out") == ran.by_key("out")
    assert stopped.dead == ran.dead
    assert stopped.changelog == ran.changelog


def test_what_was_not_drained_before_a_stop_is_not_in_the_restored_state(tmp_path: Path) -> None:
    driver = Driver(windowed(), SCHEMAS, tmp_path)
    driver.feed([event("a", 1, 10)]).finish()
    driver.feed([event("a", 100, 11)])  # no drain: as if the transaction aborted
    driver.start()
    result = driver.feed([event("a", 2, 12)]).finish(close_windows=True)
    assert [e["total"] for e in result.by_key("out")[b"a"]] == [3]


def test_a_closed_window_leaves_no_state_behind(tmp_path: Path) -> None:
    driver = Driver(windowed(), SCHEMAS, tmp_path)
    result = driver.feed([event("a", 1, 10), event("b", 1, 10)]).finish()
    assert sum(len(log) for log in result.changelog.values()) == 4  # two windows, two stream times
    driver.feed([event("a", 1, 500), event("b", 1, 500)]).finish()
    result = driver.finish(close_windows=True)
    assert {k for log in result.changelog.values() for k in log} == {b""}


def test_closing_all_windows_makes_later_records_for_them_late(tmp_path: Path) -> None:
    driver = Driver(windowed(grace=0), SCHEMAS, tmp_path)
    driver.feed([event("a", 1, 10)]).finish(close_windows=True)
    result = driver.feed([event("a", 5, 20)]).finish(close_windows=True)
    assert [e["total"] for e in result.by_key("out")[b"a"]] == [1]
    window = "[1970-01-01T00:00:00.000Z, 1970-01-01T00:00:00.050Z)"
    assert [d["window"] for _, _, d in result.dead] == [window]
    assert [d["message"] for _, _, d in result.dead] == [f"window {window} was closed already"]


def test_partitions_have_stream_times_of_their_own(tmp_path: Path) -> None:
    driver = Driver(windowed(grace=0), SCHEMAS, tmp_path)
    result = driver.feed([event("a", 1, 1000, partition=0), event("b", 1, 10, partition=1)]).finish()
    assert not result.dead
    assert not result.records["out"]


def test_an_idle_partition_closes_when_its_time_is_advanced_and_others_stay(tmp_path: Path) -> None:
    driver = Driver(windowed(grace=0), SCHEMAS, tmp_path)
    driver.feed([event("a", 1, 10, partition=0), event("b", 1, 10, partition=1)])
    driver.task.advance(10_000, {0: 30.0, 1: 29.0})
    result = driver.finish()
    assert list(result.by_key("out")) == [b"a"]


def test_a_null_key_and_a_negative_timestamp_are_dead_letters(tmp_path: Path) -> None:
    p = Processor("nullable")
    p.source("in", key="x").window(Tumbling(50)).agg(n=agg.count()).to("out")
    driver = Driver(p, SCHEMAS, tmp_path)
    result = driver.feed([event("a", None, 10), event("a", 1, -1), event("a", 1, 10)]).finish(close_windows=True)
    assert [d["rule"] for _, _, d in result.dead] == ["key", "timestamp"]
    assert [e["n"] for e in result.by_key("out")[b"1"]] == [1]


def test_results_carry_the_largest_event_time_of_their_records(tmp_path: Path) -> None:
    driver = Driver(windowed(), SCHEMAS, tmp_path)
    result = driver.feed([event("a", 1, 10), event("a", 1, 44), event("a", 1, 12)]).finish(close_windows=True)
    assert [timestamp for _, _, timestamp in result.records["out"]] == [44]


def test_a_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    driver = Driver(windowed(), SCHEMAS, tmp_path)
    driver.feed([event("a", 1, 10)]).finish()
    p = Processor("windowed-final-dead_letter")
    p.source("in", key="k").window(Tumbling(50)).agg(n=agg.count()).to("out")
    other = Driver(p, SCHEMAS, tmp_path)
    other.result = driver.result
    other.start()
    with pytest.raises(StateCorrupted, match="another shape"):
        other.feed([event("a", 1, 11)])


def test_a_flipped_bit_in_the_changelog_is_refused(tmp_path: Path) -> None:
    driver = Driver(windowed(), SCHEMAS, tmp_path)
    driver.feed([event("a", 1, 10)]).finish()
    for log in driver.result.changelog.values():
        for key, value in log.items():
            log[key] = value[:-1] + bytes([value[-1] ^ 1])
    driver.start()
    with pytest.raises(StateCorrupted, match="checksum"):
        driver.feed([event("a", 1, 11)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.window(Tumbling(50)), "no known key"),
        (lambda s: s.key_by("nope").to("out"), "'nope'"),
    ],
)
def test_a_window_that_cannot_work_is_refused_at_start(tmp_path: Path, make: Any, message: str) -> None:
    p = Processor("bad")
    with pytest.raises(TopologyError, match=message):
        Driver((make(p.source("in")), p)[1], SCHEMAS, tmp_path)


def test_an_aggregate_over_text_is_refused_at_start(tmp_path: Path) -> None:
    p = Processor("bad")
    p.source("in", key="k").window(Tumbling(50)).agg(m=agg.mean("k")).to("out")
    with pytest.raises(TopologyError, match=r"agg\.mean"):
        Driver(p, SCHEMAS, tmp_path)


@given(st.lists(st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) >= 1e-9), min_size=1))
def test_a_bucket_stands_for_its_values_within_one_percent_and_in_their_order(values: list[float]) -> None:
    import numpy as np

    ordered = sorted(values)
    of = buckets(np.array(ordered)).tolist()
    assert of == sorted(of)
    for value, bucket in zip(ordered, of, strict=True):
        assert math.isclose(bucket_value(bucket), value, rel_tol=0.01 + 1e-9)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0]))
def test_quantiles_agree_with_the_reference_ddsketch(values: list[float], q: float) -> None:
    from ddsketch import DDSketch

    reference = DDSketch(0.01)
    for value in values:
        reference.add(value)
    p = Processor("quantiles")
    p.source("in", key="k").window(Tumbling(50)).agg(q=agg.quantile(pl.col("y"), q)).to("quantiles-out")
    driver = Driver(p, SCHEMAS, FOLDER)
    result = driver.feed([event("a", None, 1, v) for v in values]).finish(close_windows=True)
    [(_, got, _)] = result.records["quantiles-out"]
    exact = sorted(values)[int(q * (len(values) - 1))]
    assert math.isclose(got["q"], exact, rel_tol=0.01 + 1e-9)
    of_reference = reference.get_quantile_value(q)
    assert of_reference is not None
    assert math.isclose(of_reference, exact, rel_tol=0.01 + 1e-9)


def test_windows_behind_a_repartition_close_after_those_before_it_have_spoken(tmp_path: Path) -> None:
    p = Processor("cascade")
    first = p.source("in", key="k").window(Tumbling(50)).agg(n=agg.count())
    first.key_by("n").window(Tumbling(100)).agg(windows=agg.count()).to("counts")
    driver = Driver(p, SCHEMAS, tmp_path)
    driver.feed([event("a", 1, 10), event("b", 1, 20), event("c", 1, 60)])
    assert driver.task.close_windows() is True
    driver.collect(driver.task.drain())
    assert not driver.result.records["counts"]
    assert driver.task.close_windows() is False
    result = driver.finish()
    assert [e["windows"] for e in result.by_key("counts")[b"1"]] == [3]
    assert not result.dead
