"""Aggregates by key without a window."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Processor, agg
from streampipe.errors import TopologyError
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import SCHEMAS
from tests.proof import EXAMPLES

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def event(key: str, x: int | None, time: int = 0) -> Event:
    return Event("in", key, {"k": key, "x": x, "y": 0.1}, time, ord(key) % 4)


def driver(folder: Path = FOLDER) -> Driver:
    p = Processor("running")
    p.source("in", key="k").agg(n=agg.count(), xs=agg.collect("x"), y=agg.sum("y")).to("out")
    return Driver(p, SCHEMAS, folder)


@pytest.mark.proof
@given(
    rows=st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 9), st.integers(-1, 99)), max_size=20),
    commits=st.lists(st.sampled_from(["no", "commit", "restart"]), min_size=20, max_size=20),
)
@settings(max_examples=EXAMPLES // 10)
def test_each_commit_tells_once_what_became_of_each_key_that_changed(
    rows: list[tuple[str, int | None, int]], commits: list[str]
) -> None:
    running, held, changed = driver(), defaultdict[str, list[int | None]](list), set[str]()
    latest: dict[str, int] = {}
    for (key, x, time), then in zip(rows, [*commits[: len(rows) - 1], "commit"] if rows else [], strict=True):
        running.feed([event(key, x, time)])
        held[key].append(x)
        changed.add(key)
        latest[key] = max(time, latest.get(key, -1))
        if then != "no":
            running.finish()
            told = running.result.records.pop("out", [])
            assert sorted(e["k"] for _, e, _ in told) == sorted(changed)
            for record_key, e, at in told:
                assert record_key == e["k"].encode()
                values = held[e["k"]]
                assert (e["n"], e["xs"]) == (len(values), [v for v in values if v is not None])
                assert e["y"] == sum([0.1] * len(values), start=0.0)
                assert at == latest[e["k"]]
            changed.clear()
        if then == "restart":
            running.start()
    assert not running.result.dead


def test_time_means_nothing_to_it(tmp_path: Path) -> None:
    running = driver(tmp_path)
    result = running.feed([event("a", 1, 10**12), event("a", 2, 5), event("a", 3, -1)]).finish(close_windows=True)
    assert [e["xs"] for _, e, _ in result.records["out"]] == [[1, 2, 3]]
    assert running.task.idle_after_s == float("inf")


def test_a_running_aggregate_needs_a_key_and_an_aggregate() -> None:
    with pytest.raises(TopologyError, match="agg after 'in': the stream has no known key"):
        Processor("p").source("in").agg(n=agg.count())
    with pytest.raises(TopologyError, match="at least one aggregate"):
        Processor("p").source("in", key="k").agg()
