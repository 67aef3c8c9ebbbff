"""Handlers: what they are given, what they may give back, and what each way of failing costs."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest

from streampipe import Fatal, Processor, Retry, Retryable, Skip
from streampipe.errors import ProcessingStopped, TopologyError
from streampipe.runtime.plan import TaskBuilder
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro
from tests.operators.support import FOLDER, IN, column, driver, reasons, rows, run

OUT = avro("Out", n="int")


@dataclass
class N:
    n: int


@dataclass
class X:
    x: int | None


@dataclass
class Small:
    x: int

    def __post_init__(self) -> None:
        if self.x > 10:
            raise ValueError("secret")


def handled(function: Any, *xs: Any, schema: str = OUT, retry: Retry | None = None) -> Any:
    return run(lambda s: s.handle(function, to="out", schema=schema, retry=retry), rows(*xs))


def test_a_dict_in_has_every_column() -> None:
    seen: list[Any] = []
    handled(lambda event: seen.append(event), 5)
    assert seen == [{"k": "k", "x": 5, "y": None, "s": None}]


def test_a_dataclass_in_has_its_fields() -> None:
    def function(event: X) -> N:
        return N((event.x or 0) + 1)

    assert column(handled(function, 1, None), "n") == [2, 1]


def test_a_dataclass_that_refuses_its_values_costs_its_own_record_only() -> None:
    def function(event: Small) -> N:
        return N(event.x)

    result = handled(function, 1, 11, 2)
    assert column(result, "n") == [1, 2]
    assert reasons(result) == [(1, "function-1", "processing")]
    assert "secret" not in str(result.dead)


@pytest.mark.parametrize(
    ("answer", "events"),
    [
        ({"n": 1}, [1]),
        (OrderedDict(n=1), [1]),
        (N(2), [2]),
        ([N(1), {"n": 2}], [1, 2]),
        ([], []),
        (None, []),
        (Skip("why not"), []),
        ({"n": 1, "unknown": 2}, [1]),
    ],
)
def test_what_a_handler_may_return(answer: Any, events: list[int]) -> None:
    result = handled(lambda _: answer, 1)
    assert column(result, "n") == events
    assert +result.outcomes == {"ok" if events else "filtered": 1}


@pytest.mark.parametrize(
    "answer",
    [
        5, "text", (N(1),), N, Skip, {"n": 1.0}, {"n": 1.5}, {"n": None}, {}, {"n": "1"}, {"n": True}, {"n": 2**31},
        [N(1), {"n": None}], [N(1), None], [N(1), Skip("no")], [N(1), N(1.5), N(2.5)],  # type: ignore[arg-type]
    ],
    ids=repr,
)  # fmt: skip
def test_an_event_that_does_not_fit_makes_its_record_a_dead_letter_whole(answer: Any) -> None:
    result = handled(lambda event: answer if event["x"] == 2 else N(event["x"]), 1, 2, 3)
    assert column(result, "n") == [1, 3]
    assert reasons(result) == [(1, "lambda-1", "serialization")]


def test_an_event_that_only_the_encoder_refuses_takes_its_record_along_whole() -> None:
    schema = json.dumps({
        "type": "record", "name": "Out",
        "fields": [{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}],
    })  # fmt: skip
    answers = {1: {"e": "A"}, 2: [{"e": "A"}, {"e": "?"}, {"e": "!"}], 3: {"e": "B"}}
    result = handled(lambda event: answers[event["x"]], 1, 2, 3, schema=schema)
    assert column(result, "e") == ["A", "B"]
    assert reasons(result) == [(1, "to-out", "serialization")]
    assert +result.outcomes == {"ok": 2, "dlq": 1}


def test_a_field_that_is_left_out_takes_its_default_and_none_does_not() -> None:
    fields = [
        {"name": "a", "type": "int", "default": 7},
        {"name": "b", "type": ["string", "null"], "default": "x"},
        {"name": "c", "type": {"type": "array", "items": "int"}, "default": [1]},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 5},
    ]
    schema = json.dumps({"type": "record", "name": "Out", "fields": fields})
    result = handled(lambda event: {} if event["x"] == 1 else {"a": 1, "b": None, "c": [], "t": 0}, 1, 2, schema=schema)
    assert column(result, "a") == [7, 1]
    assert column(result, "b") == ["x", None]
    assert column(result, "c") == [[1], []]
    assert [int(t.timestamp() * 1000) for t in column(result, "t")] == [5, 0]


def test_a_fraction_deep_inside_is_not_cut_off() -> None:
    schema = avro("Out", xs={"type": "array", "items": "int"}, m={"type": "map", "values": "long"})
    good: dict[str, Any] = {"xs": [1], "m": {"a": 1}}
    answers = {1: good, 2: {"xs": [1.5], "m": {}}, 3: {"xs": [], "m": {"a": 0.5}}}
    result = handled(lambda event: answers[event["x"]], 1, 2, 3, schema=schema)
    assert len(result.records["out"]) == 1
    assert [offset for offset, _, _ in reasons(result)] == [1, 2]


def test_an_exception_is_told_by_name_and_place_but_not_by_its_message() -> None:
    def fails(event: dict[str, Any]) -> None:
        raise ValueError(f"secret {event}")

    [(_, _, told)] = handled(fails, 1).dead
    assert told["class"] == "processing"
    assert told["exception"] == "ValueError"
    assert told["message"].startswith("raised in fails, test_function.py:")
    assert told["attempt"] == "1"
    assert "secret" not in str(told)


def test_a_timeout_is_a_class_of_its_own() -> None:
    def slow(event: dict[str, Any]) -> None:
        raise TimeoutError

    assert reasons(handled(slow, 1)) == [(0, "slow-1", "timeout")]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_retryable_is_tried_exactly_so_often_and_waits_longer_each_time(attempts: int) -> None:
    calls: list[int] = []
    waits: list[float] = []

    def function(event: dict[str, Any]) -> None:
        calls.append(event["x"])
        raise Retryable("secret")

    p = Processor("p")
    retry = Retry(attempts=attempts, backoff_s=1, max_backoff_s=3)
    p.source("in").handle(function, to="out", schema=OUT, retry=retry)
    d = Driver(p, {"in": IN}, FOLDER / f"retry-{attempts}")
    d.task = TaskBuilder(p.topology, d.registry, str(FOLDER / f"retry-{attempts}"), sleep=waits.append).build()
    result = d.feed(rows(1)).finish()
    assert calls == [1] * attempts
    assert waits == [1, 2, 3, 3][: attempts - 1]
    [(_, _, told)] = result.dead
    assert (told["class"], told["attempt"]) == ("retries_exhausted", str(attempts))


def test_a_retry_that_works_has_one_output() -> None:
    calls: list[int] = []

    def function(event: dict[str, Any]) -> N:
        calls.append(event["x"])
        if len(calls) < 3:
            raise Retryable
        return N(event["x"])

    result = handled(function, 4, retry=Retry(attempts=3, backoff_s=0))
    assert column(result, "n") == [4]
    assert not result.dead


def test_another_exception_ends_the_tries_and_counts_them() -> None:
    calls: list[int] = []

    def function(event: dict[str, Any]) -> N:
        calls.append(event["x"])
        raise Retryable if len(calls) == 1 else KeyError("secret")

    [(_, _, told)] = handled(function, 4, retry=Retry(attempts=5)).dead
    assert (told["class"], told["exception"], told["attempt"]) == ("processing", "KeyError", "2")


def test_fatal_stops_at_the_record_and_names_it() -> None:
    def function(event: dict[str, Any]) -> N:
        if event["x"] == 2:
            raise Fatal("disk is gone")
        return N(event["x"])

    with pytest.raises(ProcessingStopped, match=r"'function-1' raised Fatal at in\[0\]@1: disk is gone"):
        handled(function, 1, 2)


def test_a_time_beyond_pythons_calendar_costs_its_own_record_only() -> None:
    stamped = avro(
        "In", t={"type": "long", "logicalType": "timestamp-millis"}, d={"type": "int", "logicalType": "date"}
    )
    physical = avro("In", t="long", d="int")
    p = Processor("p")
    p.source("in", schema=stamped).handle(lambda e: {"n": e["t"].year}, to="out", schema=OUT)
    d = Driver(p, {"in": physical}, FOLDER / "calendar")
    times = [(0, 0), (2**60, 0), (0, 2**31 - 1), (10**12, 1)]
    result = d.feed([Event("in", None, {"t": t, "d": day}, 0) for t, day in times]).finish()
    assert column(result, "n") == [1970, 2001]
    assert [offset for offset, _, _ in reasons(result)] == [1, 2]


async def asynchronous(event: dict[str, Any]) -> None: ...


def yielding(event: dict[str, Any]) -> Any:
    yield event


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, "must take a parameter"),
        (lambda a, b: None, "'b' must be annotated as one of ValueState, MapState, ListState, Timers"),
        (asynchronous, "plain function"),
        (yielding, "plain function"),
    ],
)
def test_a_function_that_cannot_work_is_refused_at_start(function: Any, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        driver(lambda s: s.handle(function, to="out", schema=OUT))


def test_a_dataclass_field_that_is_no_column_is_refused_and_the_columns_are_named() -> None:
    @dataclass
    class Other:
        nope: int

    def function(event) -> None: ...  # type: ignore[no-untyped-def]  # its annotation is set below

    function.__annotations__["event"] = Other
    with pytest.raises(TopologyError, match=r"'nope' is not a column here; columns: k, x, y, s"):
        driver(lambda s: s.handle(function, to="out", schema=OUT))


def returning(made: type, *values: Any) -> Any:
    def function(event: dict[str, Any]) -> Any:
        return made(*values)

    function.__annotations__["return"] = made
    return function


def test_a_field_that_a_returned_dataclass_gained_is_not_hidden_by_the_schema_of_an_earlier_run() -> None:
    before = make_dataclass("Made", [("n", int)])
    after = make_dataclass("Made", [("n", int), ("more", str | None)])
    for function in (returning(before, 1), returning(after, 1, "more")):
        p = Processor("p")
        p.source("in").handle(function, to="gained")
        result = Driver(p, {"in": IN}, FOLDER / "gained").feed(rows(1)).finish()
    assert column(result, "more", "gained") == ["more"]
