"""Stream-stream joins against their definition, which is held against Kafka Streams' own answers."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Processor
from streampipe.errors import StateCorrupted, TopologyError
from streampipe.records import batch_of
from streampipe.topology.describe import describe
from tests.operators.driver import Driver, Event
from tests.operators.join_oracle import LEFT, RIGHT, JoinOracle, Row, Told
from tests.operators.kafka_streams import cases
from tests.operators.pipelines import avro
from tests.operators.window_oracle import text
from tests.proof import EXAMPLES, patient

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SCHEMAS = {side: avro(side.upper(), k=["null", "string"], v="string") for side in "ab"}
HOWS = ("inner", "left", "outer")
_numbers = itertools.count()


def processor(how: Any, within: Any, grace: int = 0, **options: Any) -> Processor:
    p = Processor("joined")
    left, right = (p.source(side, key="k") for side in "ab")
    left.join(right, on="k", within=within, grace=grace, how=how, prefix="r_", **options).to("out")
    return p


def driver(how: str, within: Any, grace: int = 0, **options: Any) -> Driver:
    return Driver(processor(how, within, grace, **options), SCHEMAS, FOLDER / f"{how}-{options}")


def events(rows: Sequence[Row]) -> list[Event]:
    return [Event("ab"[r.side], r.key, {"k": r.key, "v": r.value}, r.time) for r in rows]


def ours(made: Driver, rows: Sequence[Row], every: int) -> list[Told]:
    """Results with a commit after every so many records."""
    told: list[Told] = []
    for n in range(0, len(rows), every):
        made.feed(events(rows[n : n + every])).finish()
        told += collected(made, min(n + every, len(rows)) - 1)
    return told


def collected(made: Driver, number: int) -> list[Told]:
    results = made.result.records.pop("out", [])
    return [Told(number, e["k"], e["v"], e["r_v"], time) for _, e, time in results]


def by_key(told: Sequence[Told]) -> dict[str | None, list[tuple[Any, ...]]]:
    """Results of each key in order, whatever record they came with."""
    keys = {t.key for t in told}
    return {key: [t[2:] for t in told if t.key == key] for key in keys}


# runs of one side, since only those are batches
_of_a_run = st.lists(st.tuples(st.sampled_from(["x", "x", "y", None]), st.integers(0, 40)), max_size=8)
_runs = st.lists(st.tuples(st.sampled_from([LEFT, RIGHT]), _of_a_run), max_size=8)
rows_ = _runs.map(
    lambda runs: [
        Row(side, key, str(n), time)
        for n, (side, key, time) in enumerate((side, *record) for side, run in runs for record in run)
    ]
)
spans = st.tuples(st.integers(0, 12), st.integers(0, 12))


# -- Kafka Streams -------------------------------------------------------------------------------------------------


def named() -> list[Any]:
    return [pytest.param(case, id=f"stream-stream-{case['id']}") for case in cases("stream-stream")]


def inputs(case: dict[str, Any]) -> list[Row]:
    return [Row("ab".index(topic), key, value, time) for topic, key, value, time in case["input"]]


@pytest.mark.parametrize("case", named())
def test_the_definition_is_that_of_kafka_streams_but_for_late_records(case: dict[str, Any]) -> None:
    told = (
        JoinOracle(case["size"], case["size"], case["grace"], case["how"], as_kafka_streams=True).run(inputs(case)).told
    )
    theirs = []
    for number, key, value, time in case["output"]:
        left, right = (None if side == "null" else side for side in value.split("|"))
        theirs.append(Told(number, key, left, right, time))
    assert sorted(t[1:] for t in map(str_, told)) == sorted(t[1:] for t in map(str_, theirs))
    # in two cases it let go of what is over with a later record than the one that ended it
    if case["id"] not in (52, 284):
        assert sorted(map(str_, told)) == sorted(map(str_, theirs))


def str_(told: Told) -> tuple[str, ...]:
    return tuple(map(str, told))


@pytest.mark.parametrize("case", named())
def test_joins_give_what_the_definition_gives_for_kafka_streams_cases(case: dict[str, Any]) -> None:
    expected = JoinOracle(case["size"], case["size"], case["grace"], case["how"]).run(inputs(case))
    made = driver(case["how"], case["size"], case["grace"])
    assert sorted(map(str_, ours(made, inputs(case), 1))) == sorted(map(str_, expected.told))
    assert len(made.result.dead) == len(expected.late)


# -- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.proof
@patient
@given(rows=rows_, span=spans, grace=st.integers(0, 10), how=st.sampled_from(HOWS), every=st.sampled_from([1, 3, 100]))
@settings(max_examples=EXAMPLES // 4)
def test_results_and_their_order_by_key_are_those_of_the_definition_however_records_are_cut(
    rows: list[Row], span: tuple[int, int], grace: int, how: str, every: int
) -> None:
    expected = JoinOracle(*span, grace, how).run(rows).finish(len(rows))
    made = driver(how, span, grace)
    told = ours(made, rows, every)
    made.finish(close_windows=True)
    told += collected(made, len(rows))
    assert by_key(told) == by_key(expected.told)
    assert len(made.result.dead) == len(expected.late)
    assert made.result.outcomes.total() == len(rows)


@pytest.mark.proof
@patient
@given(rows=rows_, span=spans, grace=st.integers(0, 10), how=st.sampled_from(HOWS), data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_a_crash_after_any_commit_changes_no_result(
    rows: list[Row], span: tuple[int, int], grace: int, how: str, data: Any
) -> None:
    expected = JoinOracle(*span, grace, how).run(rows).finish(len(rows))
    made = driver(how, span, grace)
    crash = data.draw(st.integers(0, len(rows)))
    told = ours(made, rows[:crash], 2)
    made.feed(events(rows[crash : crash + 3])).task.take()  # never committed
    made.result.records.pop("out", None)
    made.start()
    told += ours(made, rows[crash:], 2)
    made.finish(close_windows=True)
    told += collected(made, len(rows))
    assert by_key(told) == by_key(expected.told)


@pytest.mark.proof
@patient
@given(rows=rows_, span=spans, how=st.sampled_from(HOWS), data=st.data())
@settings(max_examples=EXAMPLES // 5)
def test_any_order_within_grace_gives_the_same_results(
    rows: list[Row], span: tuple[int, int], how: str, data: Any
) -> None:
    def final(order: list[Row]) -> list[tuple[str, ...]]:
        made = driver(how, span, 60)
        told = ours(made, order, 5)
        made.finish(close_windows=True)
        return sorted(tuple(map(str, t[1:])) for t in [*told, *collected(made, 0)])

    assert final(rows) == final(data.draw(st.permutations(rows)))


@pytest.mark.proof
@patient
@given(rows=rows_, span=spans, grace=st.integers(0, 5))
@settings(max_examples=EXAMPLES // 4)
def test_nothing_is_left_in_the_state_when_everything_is_over(
    rows: list[Row], span: tuple[int, int], grace: int
) -> None:
    made = driver("outer", span, grace)
    ours(made, [*rows, Row(LEFT, "last", "v", 10**6)], 4)
    made.finish(close_windows=True)
    assert all(set(log) <= {b""} for log in made.result.changelog.values())


def test_what_is_over_goes_out_behind_the_pairs_of_the_records_before_the_one_that_ended_it() -> None:
    rows = [Row(LEFT, "x", "joins", 0), Row(LEFT, "x", "waits", 5)]
    rows += [Row(RIGHT, "z", "moves time", 7), Row(RIGHT, "x", "meets", 1), Row(RIGHT, "y", "ends", 100)]
    made = driver("left", (2, 10), grace=20)
    assert [t[2:4] for t in ours(made, rows, 100)] == [("joins", "meets"), ("waits", None)]


# -- single rules ----------------------------------------------------------------------------------------------------


def test_late_records_are_dropped_by_policy_and_counted() -> None:
    made = driver("outer", 5, late="drop")
    ours(made, [Row(LEFT, "x", "new", 100), Row(RIGHT, "x", "old", 94), Row(RIGHT, "x", "just", 95)], 10)
    assert made.result.outcomes == {"ok": 2, "dropped": 1, "filtered": 0, "dlq": 0}
    assert made.result.late_drops == {"join-1": 1}
    assert made.result.dead == []


def test_a_late_dead_letter_names_the_times_it_would_have_joined() -> None:
    made = driver("inner", ("10ms", "20ms"))
    ours(made, [Row(LEFT, "x", "new", 1_000), Row(RIGHT, "x", "old", 100)], 10)
    [(_, _, told)] = made.result.dead
    assert (told["class"], told["window"]) == ("late", "[1970-01-01T00:00:00.080Z, 1970-01-01T00:00:00.110Z]")


@pytest.mark.proof
@patient
@given(rows=rows_, span=spans, how=st.sampled_from(HOWS))
@settings(max_examples=EXAMPLES // 4)
def test_every_late_dead_letter_names_the_times_of_all_partners_that_it_could_have_had(
    rows: list[Row], span: tuple[int, int], how: str
) -> None:
    rows = [Row(LEFT, "x", "overtakes", 100), *rows]  # all times up to 40 are late then
    made = driver(how, span)
    ours(made, rows, 100)
    by_definition = JoinOracle(*span, 0, how).run(rows)
    assert len(by_definition.late) == len(rows) - 1
    for number, (_, _, told) in zip(by_definition.late, made.result.dead, strict=True):
        row = rows[number]
        others = (Row(1 - row.side, row.key, "partner", time) for time in range(row.time - 50, row.time + 50))
        times = [other.time for other in others if by_definition.partners(row, other)]
        assert (told["stage"], told["window"]) == ("join-1", f"[{text(min(times))}, {text(max(times))}]")


def test_state_shows_the_records_that_wait() -> None:
    made = driver("outer", 5)
    ours(made, [Row(LEFT, "x", "l", 1), Row(RIGHT, "x", "r", 2), Row(RIGHT, "y", "s", 3)], 1)
    [left, right] = [frame.arrow().to_pylist() for frame in made.start().look("join-1", 0)]
    assert left == [{"k": "x", "v": "l", "r_v": None}]
    assert right == [{"k": "x", "v": None, "r_v": "r"}, {"k": "y", "v": None, "r_v": "s"}]


def test_a_silent_partition_lets_go_of_what_waits_by_the_clock_after_idle_after() -> None:
    made = driver("left", 5)
    ours(made, [Row(LEFT, "x", "l", 1_000)], 1)
    made.task.advance(1_006, {0: 29.0})
    made.finish()
    assert collected(made, 0) == []
    made.task.advance(1_005, {0: 30.0})
    made.finish()
    assert collected(made, 0) == []
    made.task.advance(1_006, {0: 30.0})
    made.finish()
    assert collected(made, 0) == [Told(0, "x", "l", None, 1_000)]


def test_state_of_another_shape_is_refused() -> None:
    made = driver("inner", 5)
    ours(made, [Row(LEFT, "x", "l", 1)], 1)
    p = Processor("joined")
    left, right = p.source("a", key="k"), p.source("b", key="k")
    left.select("k").join(right, on="k", within=5, prefix="r_").to("out")
    other = Driver(p, SCHEMAS, FOLDER / str(next(_numbers)))
    other.result.changelog = made.result.changelog
    with pytest.raises(StateCorrupted, match="another shape"):
        other.start().process([batch_of(other.encode(events([Row(LEFT, "x", "m", 2)])))])


def test_a_join_is_described() -> None:
    text = describe(processor("left", ("1s", "2s"), 500).topology)
    assert "left join within 1000 ms before to 2000 ms after, grace 500 ms, late dead_letter  -> to-out" in text


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda a, b: a.join(b, on="v", within=1), "the left stream is keyed by k; put .key_by('v') before the join"),
        (lambda a, b: a.join(a.filter(pl.col("v") > ""), on="k", within=1), "both streams come from topic 'a'"),
        (lambda a, b: a.join(b, on="k"), "needs within="),
        (lambda a, b: a.join(b, on="k", within=(1, -1)), "must not be negative"),
        (lambda a, b: a.join(b, on="k", within=1, how="cross"), "use one of 'inner', 'left', 'outer'"),
        (lambda a, b: a.join(b, on="k", within=1, late="update"), "use one of 'dead_letter', 'drop'"),
    ],
)
def test_a_join_that_cannot_be_says_what_to_do(make: Any, says: str) -> None:
    p = Processor("p")
    with pytest.raises(TopologyError) as raised:
        make(p.source("a", key="k"), p.source("b", key="k"))
    assert says in str(raised.value)


def test_columns_that_both_sides_have_need_a_prefix() -> None:
    p = Processor("p")
    p.source("a", key="k").join(p.source("b", key="k"), on="k", within=1).to("out")
    with pytest.raises(TopologyError, match=r"stream and the right stream both have v; give the join a prefix"):
        Driver(p, SCHEMAS, FOLDER / str(next(_numbers)))


def test_keys_of_other_types_are_refused_naming_both() -> None:
    schemas = {"a": avro("A", k="string", v="string"), "b": avro("B", k="long", v="string")}
    p = Processor("p")
    p.source("a", key="k").join(p.source("b", key="k"), on="k", within=1, prefix="r_").to("out")
    with pytest.raises(TopologyError, match=r"'k' is string on the left and int64 on the right"):
        Driver(p, schemas, FOLDER / str(next(_numbers)))
