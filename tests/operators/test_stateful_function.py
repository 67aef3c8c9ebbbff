"""Functions that remember: what their states hold, when their timers ring, and that no cut or crash changes either."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streampipe import Fatal, ListState, MapState, Processor, Retry, Retryable, Timer, Timers, ValueState
from streampipe.errors import ProcessingStopped, StateLost, TopologyError
from streampipe.observe.state import entries_of
from streampipe.state.memory import MemoryStore
from streampipe.topology.describe import describe
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro
from tests.proof import EXAMPLES, patient

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SCHEMAS = {"in": avro("In", k=["null", "string"], v="int")}
OUT = avro("Out", k="string", what="string", n="int")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORGOTTEN = "~"
"""The end of a state; it comes after timers of the same key and time."""


class Row(NamedTuple):
    """A record; its partition is that of its key."""

    key: str | None
    time: int
    number: int = 0


@dataclass
class In:
    k: str
    v: int


@dataclass
class Out:
    k: str
    what: str
    n: int


def ms(time: int) -> datetime:
    return EPOCH + timedelta(milliseconds=time)


def driver(function: Any, **options: Any) -> Driver:
    p = Processor("p")
    p.source("in", key="k").handle(function, name="f", **options).to("out", schema=OUT)
    return Driver(p, SCHEMAS, FOLDER / "all")


def fed(made: Driver, rows: Sequence[Row], every: int = 100, now_ms: int | None = None) -> Driver:
    for n in range(0, len(rows), every):
        of = {"a": 0, "b": 1, "c": 0}
        events = [
            Event("in", r.key, {"k": r.key, "v": r.number}, r.time, of.get(r.key or "", 0)) for r in rows[n : n + every]
        ]
        made.feed(events, now_ms=now_ms).finish()
    return made


def told(made: Driver) -> list[tuple[str, str, int, int]]:
    """Key, what, number and time of every event, in order."""
    return [(e["k"], e["what"], e["n"], time) for _, e, time in made.result.records["out"]]


def counting(event: In, count: ValueState[int]) -> Out:
    count.set(count.get(0) + 1)
    return Out(event.k, "count", count.get())


def count_and_wait(event: In, count: ValueState[int], timers: Timers) -> Out:
    """A burst: counted until nothing came for 10 ms, and looked at once 3 ms after its third record."""
    count.set(count.get(0) + 1)
    timers.set(ms(event.v) + timedelta(milliseconds=10), "over")
    if count.get() == 3:
        timers.set(timers.stream_time + timedelta(milliseconds=3), "look")
    if count.get() == 5:
        timers.cancel("look")
    return Out(event.k, "count", count.get())


def burst_over(timer: Timer, count: ValueState[int], timers: Timers) -> Out | list[Out] | None:
    n = count.get(0)
    if timer.name == "look":
        timers.set(timer.at + timedelta(milliseconds=2), "look-again")
        return None
    if timer.name == "over":
        count.clear()
    made = Out(timer.key["k"], timer.name, n)
    return [made, made] if n > 3 else made


def by_definition(rows: Sequence[Row], ttl: int | None = None) -> list[tuple[str, str, int, int]]:
    """What `count_and_wait` and `burst_over` give, one record at a time."""
    out: list[tuple[str, str, int, int]] = []
    now, counts = {0: -1, 1: -1}, dict[str, int]()
    timers, changed = dict[tuple[str, str], int](), dict[str, int]()
    home = {"a": 0, "b": 1, "c": 0}

    def ring(partition: int) -> None:
        while ripe := sorted((at, k, n) for k, n, at in due() if home[k] == partition and at <= now[partition]):
            at, key, name = ripe[0]
            if name == FORGOTTEN:
                del counts[key]
                continue
            del timers[key, name]
            if name == "look":
                timers[key, "look-again"] = at + 2
                changed[key] = now[partition]
                continue
            out.extend([(key, name, counts.get(key, 0), at)] * (2 if counts.get(key, 0) > 3 else 1))
            if name == "over":
                counts.pop(key, None)

    def due() -> list[tuple[str, str, int]]:
        ends = [] if ttl is None else [(key, FORGOTTEN, changed[key] + ttl) for key in counts]
        return [(key, name, at) for (key, name), at in timers.items()] + ends

    for row in rows:
        assert row.key is not None
        partition = home[row.key]
        now[partition] = max(now[partition], row.time)
        ring(partition)
        counts[row.key] = counts.get(row.key, 0) + 1
        changed[row.key] = now[partition]
        timers[row.key, "over"] = row.number + 10
        if counts[row.key] == 3:
            timers[row.key, "look"] = now[partition] + 3
        if counts[row.key] == 5:
            timers.pop((row.key, "look"), None)
        out.append((row.key, "count", counts[row.key], row.time))
        ring(partition)
    return out


rows_ = st.lists(st.tuples(st.sampled_from("aabc"), st.integers(0, 40)), max_size=40).map(
    lambda drawn: [Row(key, time, time) for key, time in drawn]
)


@pytest.mark.proof
@patient
@given(rows=rows_, every=st.sampled_from([1, 3, 100]), ttl=st.none() | st.integers(1, 20))
@example(rows=[Row("a", 0, 0), Row("a", 5, 5), Row("c", 40, 40)], every=1, ttl=12)
@settings(max_examples=EXAMPLES // 2)
def test_timers_and_ends_of_states_come_between_records_by_time_key_and_name_however_records_are_cut(
    rows: list[Row], every: int, ttl: int | None
) -> None:
    made = driver(count_and_wait, on_timer=burst_over, ttl=ttl)
    assert told(fed(made, rows, every)) == by_definition(rows, ttl)
    assert made.result.outcomes["ok"] == len(rows)
    assert not made.result.dead


@pytest.mark.proof
@patient
@given(rows=rows_, ttl=st.none() | st.integers(1, 20), data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_a_crash_after_any_commit_changes_no_state_and_no_timer(rows: list[Row], ttl: int | None, data: Any) -> None:
    crash = data.draw(st.integers(0, len(rows)))
    made = fed(driver(count_and_wait, on_timer=burst_over, ttl=ttl), rows[:crash], 2)
    kept = list(made.result.records["out"])
    made.feed(Event("in", r.key, {"k": r.key, "v": r.number}, r.time) for r in rows[crash : crash + 3])
    made.result.records["out"] = kept
    made.start()
    assert told(fed(made, rows[crash:], 2)) == by_definition(rows, ttl)


@pytest.mark.proof
@patient
@given(rows=rows_, every=st.sampled_from([1, 2, 100]), ttl=st.integers(1, 20))
@settings(max_examples=EXAMPLES // 2)
def test_states_are_forgotten_after_their_time_without_a_change(rows: list[Row], every: int, ttl: int) -> None:
    now, changed, counts, want = {"a": -1, "b": -1}, dict[str, int](), dict[str, int](), []
    for row in rows:
        assert row.key is not None
        home = "b" if row.key == "b" else "a"
        now[home] = max(now[home], row.time)
        if row.key in changed and changed[row.key] + ttl <= now[home]:
            counts.pop(row.key, None)
        changed[row.key] = now[home]
        counts[row.key] = counts.get(row.key, 0) + 1
        want.append((row.key, "count", counts[row.key], row.time))
    assert told(fed(driver(counting, ttl=ttl), rows, every)) == want


def test_what_is_forgotten_leaves_the_changelog() -> None:
    made = fed(driver(counting, ttl=10), [Row("a", 0), Row("c", 5)], 1)
    log = made.result.changelog["p-f-changelog", 0]
    assert set(log) == {b'["a"]', b'["c"]', b""}
    fed(made, [Row("c", 10)])
    assert set(log) == {b'["c"]', b""}


def test_one_record_of_changelog_for_each_changed_key_and_commit() -> None:
    made = driver(counting)
    made.feed(Event("in", k, {"k": k, "v": 0}, 0) for k in "aaabba")
    [batch] = made.task.drain().changelog
    assert sorted(map(bytes, (k for k in batch.keys if k))) == [b'["a"]', b'["b"]']


def looking_only(event: In, count: ValueState[int]) -> None:
    count.get()


def test_a_call_that_changes_nothing_writes_nothing() -> None:
    made = fed(driver(looking_only, schema=OUT), [Row("a", 0)])
    assert not made.result.changelog
    assert made.result.outcomes["filtered"] == 1


def failing_after_a_change(
    event: In, count: ValueState[int], seen: MapState[int], all_: ListState[int], timers: Timers
) -> Out:
    count.set(count.get(0) + 1)
    seen[str(event.v)] = count.get()
    all_.append(event.v)
    timers.set(ms(1000 + event.v))
    if event.v < 0:
        raise ValueError("negative")
    return Out(event.k, json.dumps([sorted(seen.items()), list(all_)]), count.get())


def nothing(timer: Timer) -> None: ...


def test_a_call_that_fails_changes_no_state() -> None:
    made = fed(driver(failing_after_a_change, on_timer=nothing), [Row("a", 0, 1), Row("a", 1, -1), Row("a", 2, 2)])
    assert [(what, n) for _, what, n, _ in told(made)] == [
        ('[[["1", 1]], [1]]', 1),
        ('[[["1", 1], ["2", 2]], [1, 2]]', 2),
    ]
    assert [reason["class"] for _, _, reason in made.result.dead] == ["processing"]
    [frame] = made.start().look("f", 0)
    timer = {"name": "timer", "clock": "stream", "at": "1970-01-01T00:00:01.002Z"}
    shown = {"k": "a", "all_": [1, 2], "count": 2, "seen": {"1": 1, "2": 2}, "timers": [timer]}
    assert [entry["columns"] for entry in entries_of(frame, made.task.stores["f"].json_columns)] == [shown]


def failing_first(event: In, count: ValueState[int]) -> Out:
    count.set(count.get(0) + 1)
    TRIES.append(1)
    if len(TRIES) % 3:
        raise Retryable("not yet")
    return Out(event.k, "count", count.get())


TRIES: list[int] = []


def test_tries_of_one_record_count_once() -> None:
    TRIES.clear()
    made = fed(driver(failing_first, retry=Retry(attempts=3)), [Row("a", 0), Row("a", 1)])
    assert [n for _, _, n, _ in told(made)] == [1, 2]
    assert len(TRIES) == 6


def test_a_damaged_store_is_no_fault_of_the_record_that_let_a_timer_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fed(driver(count_and_wait, on_timer=burst_over), [Row("a", 0)])
    read = MemoryStore.get_many

    def damaged(store: MemoryStore, keys: Sequence[bytes]) -> list[bytes | None]:
        if any(b"a" in key for key in keys):
            raise StateLost("damaged")
        return read(store, keys)

    monkeypatch.setattr(MemoryStore, "get_many", damaged)
    with pytest.raises(StateLost, match="damaged"):
        fed(made, [Row("c", 100)])


def keeping_a_set(event: In, entries: MapState[Any]) -> Out:
    entries["x"] = {1}
    return Out(event.k, "kept", 0)


def test_what_a_state_does_not_take_is_told_by_the_line_that_gave_it() -> None:
    [(_, _, why)] = fed(driver(keeping_a_set), [Row("a", 0)]).result.dead
    line = keeping_a_set.__code__.co_firstlineno + 1
    assert why["message"] == f"raised in keeping_a_set, test_stateful_function.py:{line}"


def given_defaults(event: In, value: ValueState[Any], entries: MapState[Any]) -> Out:
    for default in ({1}, (1, 2), [3]):
        assert value.get(default) is default
        assert entries.get("none", default) is default
    entries["null"] = None
    return Out(event.k, str(entries.get("null", "default")), 0)


def test_a_default_is_given_back_as_it_is_and_only_for_what_is_not_there() -> None:
    assert [about for _, about, *_ in told(fed(driver(given_defaults), [Row("a", 0)]))] == ["None"]


def every_way(event: In, value: ValueState[Any], entries: MapState[Any], items: ListState[Any]) -> Out:
    value.set({"list": [1]})
    value.get()["list"].append(2)
    entries["x"] = (1, 2)
    entries.get("x").append(3)
    entries["gone"] = 1
    del entries["gone"]
    items.extend([[1], [2]])
    items[0].append(9)
    for item in items:
        item.append(9)
    items.set([*items, "end"])
    said = [value.get(), "x" in entries, list(entries), len(entries), entries["x"], list(items), len(items)]
    with pytest.raises(KeyError):
        entries["none"]
    with pytest.raises(KeyError):
        del entries["none"]
    with pytest.raises(TypeError, match="named by a str"):
        entries[1] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        value.set(datetime(2026, 1, 1, tzinfo=UTC))
    entries.clear()
    items.clear()
    value.clear()
    assert (value.get("none"), len(entries), len(items), entries.get("x", "none")) == ("none", 0, 0, "none")
    return Out(event.k, json.dumps(said), 0)


def test_what_a_state_gives_is_a_copy_and_what_it_keeps_is_json() -> None:
    made = fed(driver(every_way), [Row("a", 0)])
    assert json.loads(told(made)[0][1]) == [{"list": [1]}, True, ["x"], 1, [1, 2], [[1], [2], "end"], 3]
    assert not made.result.changelog["p-f-changelog", 0]


def set_both(event: In, timers: Timers) -> None:
    timers.set(ms(event.v), "stream")
    timers.set(ms(event.v), "wall", clock="wall")


def say(timer: Timer) -> Out:
    return Out(timer.key["k"], timer.name, 0)


def test_wall_clock_timers_ring_by_the_wall_clock_alone_with_the_stream_time_as_event_time() -> None:
    made = fed(driver(set_both, on_timer=say), [Row("a", 7, 500)], now_ms=100)
    made.task.advance(499, {0: 1.0})
    made.collect(made.task.drain())
    assert told(made) == []
    made.start()
    made.task.advance(500, {0: 1.0})
    made.collect(made.task.drain())
    assert told(made) == [("a", "wall", 0, 7)]
    fed(made, [Row("a", 8, 600)], now_ms=600)
    assert told(made) == [("a", "wall", 0, 7)]
    fed(made, [Row("c", 9, 9000)], now_ms=600)
    assert told(made) == [("a", "wall", 0, 7), ("a", "wall", 0, 8)]


def test_the_wall_clock_stands_still_in_a_replay() -> None:
    made = fed(fed(driver(set_both, on_timer=say), [Row("a", 7, 5)]), [Row("a", 8, 9000)])
    assert told(made) == [("a", "stream", 0, 5)]


def test_an_idle_partition_lets_stream_timers_follow_the_clock() -> None:
    made = fed(driver(set_both, on_timer=say, idle_after="2s"), [Row("a", 7, 500)])
    made.task.advance(400, {0: 2.0})
    made.task.advance(600, {0: 1.9})
    made.collect(made.task.drain())
    assert [what for _, what, _, _ in told(made)] == ["wall"]
    made.task.advance(600, {0: 2.0})
    made.collect(made.task.drain())
    assert [what for _, what, _, _ in told(made)] == ["wall", "stream"]


def repeating(timer: Timer, timers: Timers) -> Out:
    timers.set(timer.at + timedelta(milliseconds=400))
    return say(timer)


def test_closing_rings_each_stream_timer_that_is_set_and_what_those_set_by_then() -> None:
    made = fed(driver(set_both, on_timer=repeating), [Row("a", 0, 500), Row("b", 0, 50), Row("c", 0, 100)])
    made.finish(close_windows=True)
    assert told(made) == [
        ("c", "stream", 0, 100), ("a", "stream", 0, 500), ("c", "timer", 0, 500), ("b", "stream", 0, 50)
    ]  # fmt: skip


def for_ever(timer: Timer, timers: Timers) -> None:
    timers.set(timer.at)


def within_its_millisecond(timer: Timer, timers: Timers) -> None:
    timers.set(timer.at + timedelta(microseconds=999))


def broken(timer: Timer) -> Out:
    raise ValueError("secret")


def fatal(timer: Timer) -> Out:
    raise Fatal("no disk")


def misfit(timer: Timer) -> Any:
    return {"k": timer.key["k"], "what": timer.name, "n": "no number"}


@pytest.mark.parametrize(
    ("on_timer", "failure", "exception"),
    [
        (broken, "processing", "ValueError"), (for_ever, "processing", "ValueError"),
        (within_its_millisecond, "processing", "ValueError"), (misfit, "serialization", "ArrowInvalid"),
    ],
)  # fmt: skip
def test_a_timer_whose_call_fails_is_a_dead_letter_and_over(on_timer: Any, failure: str, exception: str) -> None:
    made = fed(driver(set_both, on_timer=on_timer, schema=OUT), [Row("a", 0, 5), Row("a", 6, 900), Row("a", 7, 900)])
    [(key, value, reason)] = made.result.dead
    assert (key, json.loads(value or b"")) == (b"a", {"timer": "stream", "at": 5})
    assert (reason["class"], reason["exception"], reason["stage"]) == (failure, exception, "f")
    assert "secret" not in reason["message"]


def test_a_fatal_timer_stops_the_processor() -> None:
    made = driver(set_both, on_timer=fatal, schema=OUT)
    with pytest.raises(ProcessingStopped, match=r"'f' raised Fatal at f.*no disk"):
        fed(made, [Row("a", 0, 5), Row("a", 6, 900)])


def echo_and_wait(event: In, timers: Timers) -> Out:
    timers.set(ms(event.v + 1))
    return Out(event.k, "event", event.v)


def test_a_record_that_fails_behind_the_function_is_a_dead_letter_of_its_own_even_among_timers() -> None:
    p = Processor("p")
    events = p.source("in", key="k").handle(echo_and_wait, name="f", on_timer=say)
    events.expect(odd=pl.col("n") % 2 == 1).to("out", schema=OUT)  # as all others: the registry is one for all
    made = fed(Driver(p, SCHEMAS, FOLDER / "all"), [Row("c", 0, 1), Row("a", 2, 3), Row("a", 4, 4), Row("a", 9, 5)])
    assert [(e["k"], e["n"]) for _, e, _ in made.result.records["out"]] == [("c", 1), ("a", 3), ("a", 5)]
    of = [(reason["topic"], reason["offset"], reason["timestamp"]) for _, _, reason in made.result.dead]
    assert of == [("f", "-1", "2"), ("f", "-1", "4"), ("in", "2", "4"), ("f", "-1", "5"), ("f", "-1", "6")]
    assert made.result.outcomes == {"ok": 3, "dlq": 1, "filtered": 0, "dropped": 0}


def test_a_record_without_key_or_time_is_a_dead_letter() -> None:
    made = fed(driver(set_both, on_timer=say), [Row(None, 0, 1), Row("a", -1, 1), Row("a", 0, 1)])
    assert [reason["rule"] for _, _, reason in made.result.dead] == ["key", "timestamp"]
    assert not fed(driver(counting), [Row("a", -1)]).result.dead


def other_kind(timer: Timer, count: MapState[int]) -> Out:
    return Out("", "", len(count))


def takes_a_dict(timer: dict[str, Any]) -> Out:
    return Out("", "", len(timer))


@dataclass
class Other:
    n: int


def other_event(timer: Timer) -> Other:
    return Other(1)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (set_both, {"schema": OUT}, r"asks for Timers; say what to call: handle\(..., on_timer=function\)"),
        (counting, {"on_timer": other_kind}, "'count' is another kind of state in its on_timer"),
        (counting, {"on_timer": takes_a_dict}, "on_timer is called with a Timer, not with dict"),
        (counting, {"on_timer": other_event}, "return different events, Other and Out"),
        (counting, {"ttl": 0}, "ttl=0: use a length of time"),
    ],
)
def test_what_cannot_work_is_refused_at_start(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        driver(function, **options)


def test_state_needs_a_key() -> None:
    with pytest.raises(TopologyError, match=r"no known key; call .key_by"):
        Processor("p").source("in").handle(counting)


@pytest.mark.parametrize("asked", ["a", "c"])
def test_state_of_other_kinds_is_never_read_as_these_nor_left_for_later(asked: str) -> None:
    made = fed(driver(counting), [Row("a", 0)])

    def renamed(event: In, total: ValueState[int]) -> Out:
        return Out(event.k, "total", total.get(0))

    renamed.__annotations__ = {"event": In, "total": ValueState[int], "return": Out}
    other = driver(renamed)
    other.result = made.result
    with pytest.raises(Exception, match="written by another shape"):
        fed(_started(other), [Row(asked, 1)])


def _started(made: Driver) -> Driver:
    made.start()
    return made


def test_it_is_described() -> None:
    p = Processor("p")
    p.source("in", key="k").handle(count_and_wait, on_timer=burst_over, ttl="1h", idle_after="never").to("out")
    assert (
        "count-and-wait-1: count_and_wait() with state, burst_over() when a timer rings, forgets after 3600000 ms, "
        "idle after never  -> to-out"
    ) in describe(p.topology)
