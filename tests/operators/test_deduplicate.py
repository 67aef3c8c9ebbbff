"""The first of what is near each other, against its definition."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Processor
from streampipe.errors import TopologyError
from streampipe.topology.describe import describe
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro
from tests.proof import EXAMPLES, patient

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SCHEMAS = {"in": avro("In", k=["null", "string"], v="int")}


class Row(NamedTuple):
    """A record; its number is its value."""

    key: str
    time: int
    number: int


def driver(within: int, grace: int, **options: Any) -> Driver:
    p = Processor("p")
    p.source("in", key="k").deduplicate(within=within, grace=grace, **options).to("out")
    return Driver(p, SCHEMAS, FOLDER / "all")


def ours(made: Driver, rows: Sequence[Row], every: int) -> list[int]:
    """Numbers of those that went through, with a commit after every so many records."""
    for n in range(0, len(rows), every):
        made.feed(Event("in", r.key, {"k": r.key, "v": r.number}, r.time) for r in rows[n : n + every]).finish()
    return [event["v"] for _, event, _ in made.result.records["out"]]


def by_definition(rows: Sequence[Row], within: int, grace: int) -> tuple[list[int], list[int]]:
    """Numbers of those that go through, and of the late ones."""
    now, passed, late = -1, list[Row](), []
    for row in rows:
        now = max(now, row.time)
        if row.time < now - grace:
            late.append(row.number)
        elif not any(p.key == row.key and abs(p.time - row.time) < within for p in passed):
            passed.append(row)
    return [row.number for row in passed], late


rows_ = st.lists(st.tuples(st.sampled_from("aab"), st.integers(0, 60)), max_size=40).map(
    lambda drawn: [Row(key, time, n) for n, (key, time) in enumerate(drawn)]
)


@pytest.mark.proof
@patient
@given(rows=rows_, within=st.integers(1, 20), grace=st.integers(0, 40), every=st.sampled_from([1, 3, 100]))
@settings(max_examples=EXAMPLES // 2)
def test_the_first_of_what_is_near_each_other_goes_through_however_records_are_cut(
    rows: list[Row], within: int, grace: int, every: int
) -> None:
    passed, late = by_definition(rows, within, grace)
    made = driver(within, grace)
    assert ours(made, rows, every) == passed
    assert [int(told["offset"]) for _, _, told in made.result.dead] == late
    outcomes = {"ok": len(passed), "dlq": len(late), "filtered": len(rows) - len(passed) - len(late)}
    assert +made.result.outcomes == +Counter(outcomes)


@pytest.mark.proof
@patient
@given(rows=rows_, within=st.integers(1, 20), grace=st.integers(0, 40), data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_a_crash_after_any_commit_changes_no_result(rows: list[Row], within: int, grace: int, data: Any) -> None:
    crash = data.draw(st.integers(0, len(rows)))
    made = driver(within, grace)
    ours(made, rows[:crash], 2)
    kept = list(made.result.records["out"])
    made.feed(Event("in", r.key, {"k": r.key, "v": r.number}, r.time) for r in rows[crash : crash + 3])
    made.result.records["out"] = kept
    made.start()
    assert ours(made, rows[crash:], 2) == by_definition(rows, within, grace)[0]


def test_what_cannot_have_duplicates_any_more_is_forgotten() -> None:
    made = driver(10, 5)
    ours(made, [Row("a", 0, 0), Row("b", 15, 1)], 1)
    assert len(made.result.changelog["p-deduplicate-1-changelog", 0]) == 3  # both, and the stream time
    ours(made, [Row("b", 16, 2)], 1)
    assert len(made.result.changelog["p-deduplicate-1-changelog", 0]) == 2


def test_state_shows_keys_and_the_times_they_went_through_with() -> None:
    made = driver(10, 5)
    ours(made, [Row("a", 3, 0), Row("b", 4, 1), Row("a", 5, 2)], 1)
    [frame] = made.start().look("deduplicate-1", 0)
    assert frame.arrow().to_pylist() == [{"k": "a"}, {"k": "b"}]
    assert frame.timestamps.tolist() == [3, 4]


def test_a_late_dead_letter_names_the_times_of_what_it_could_repeat() -> None:
    made = driver(10, 5)
    ours(made, [Row("a", 100, 0), Row("a", 50, 1)], 10)
    [(_, _, reason)] = made.result.dead
    assert reason["window"] == "[1970-01-01T00:00:00.041Z, 1970-01-01T00:00:00.059Z]"


def test_late_records_are_dropped_by_policy_and_a_null_key_is_a_dead_letter() -> None:
    made = driver(10, 5, late="drop")
    made.feed([Event("in", None, {"k": None, "v": 9}, 100)])
    assert ours(made, [Row("a", 100, 0), Row("a", 94, 1), Row("b", 95, 2)], 10) == [0, 2]
    assert made.result.outcomes["dropped"] == 1
    assert made.result.late_drops == {"deduplicate-1": 1}
    assert [told["rule"] for _, _, told in made.result.dead] == ["key"]


def test_it_is_described_and_what_it_cannot_be_is_refused() -> None:
    p = Processor("p")
    p.source("in", key="k").deduplicate(within="1s").to("out")
    assert "deduplicate-1: first within 1000 ms, grace 1000 ms, late dead_letter  -> to-out" in describe(p.topology)
    with pytest.raises(TopologyError, match=r"no known key; call .key_by"):
        p.source("other").deduplicate(within="1s")
    with pytest.raises(TopologyError, match=r"within=0"):
        p.source("more", key="k").deduplicate(within=0)
