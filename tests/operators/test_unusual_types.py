"""Aggregates of every type that a Polars expression can give: right, also after a restart, or refused at start."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from streampipe import agg
from streampipe.aggregates import Aggregate
from streampipe.errors import TopologyError
from streampipe.operators.accumulators import Accumulator, accumulator
from streampipe.operators.expressions import arrow_type
from streampipe.operators.frame import Column
from streampipe.operators.slots import Slots
from streampipe.operators.window_state import WindowStateCodec


@dataclass(frozen=True)
class Case:
    """An aggregate, and what it gives of values that are not null."""

    aggregate: Aggregate
    oracle: Callable[[list[Any]], Any]


CASES = {
    "count": Case(agg.count("x"), len),
    "sum": Case(agg.sum("x"), sum),
    "mean": Case(agg.mean("x"), lambda v: pytest.approx(statistics.fmean(v))),
    "stddev": Case(agg.stddev("x"), lambda v: pytest.approx(statistics.stdev(map(float, v)))),
    "quantile": Case(agg.quantile("x", 0.5), lambda v: pytest.approx(sorted(v)[(len(v) - 1) // 2], rel=0.011)),
    "min": Case(agg.min("x"), min),
    "max": Case(agg.max("x"), max),
    "top_k": Case(agg.top_k("x", 3), lambda v: sorted(v, reverse=True)[:3]),
    "first": Case(agg.first("x"), lambda v: v[0]),
    "last": Case(agg.last("x"), lambda v: v[-1]),
    "collect": Case(agg.collect("x"), list),
    "approx_distinct": Case(agg.approx_distinct("x"), lambda v: len(set(v))),
    "reduce": Case(agg.reduce(lambda _, value: value, "x"), lambda v: v[-1]),
    "aggregate": Case(agg.aggregate(0, lambda n, _: n + 1, "x", merge=lambda a, b: a + b), len),
}
ARITHMETIC, ORDER = {"sum", "mean", "stddev", "quantile"}, {"min", "max", "top_k"}


def series(kind: Any, *values: Any) -> pl.Series:
    return pl.Series([values[0], None, *values[1:]], dtype=kind)


def integers(kind: Any) -> pl.Series:
    """The ends of a type, and what is around the middle, in a sum that stays within 64 bits."""
    low, high = (pl.select(end).item() for end in (kind.min(), kind.max()))
    middle = (high + 1) // 2
    return series(kind, 5, low, middle, 7, *((middle - 20, 5) if low == 0 else (high, -3)))


def instants(kind: Any, step: int) -> pl.Series:
    """Whole microseconds, for Python knows no smaller ones."""
    return series(pl.Int64, *(step * n for n in (1, -7, 2**47, 0, 1))).cast(kind)


WORDS = pl.Enum(["zz", "q", "", "é"])
TEXTS = ["q", "zz", "", "é", "q"]
NUMBERS = [
    *map(integers, [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]),
    *(series(kind, 0.5, -2.0, 0.25, 700.0, 0.5) for kind in (pl.Float16, pl.Float32, pl.Float64)),
]
LENGTHS = [timedelta(days=1), timedelta(microseconds=-7000), timedelta(days=-40_000), timedelta(0), timedelta(days=1)]
TIMES = [
    *(series(pl.Duration(unit), *LENGTHS) for unit in ("ms", "us", "ns")),
    *(instants(kind, 1) for kind in (pl.Datetime("us"), pl.Datetime("us", "Europe/Berlin"))),
    instants(pl.Datetime("ns"), 1_000),
    instants(pl.Datetime("ms", "UTC"), 1),
    series(pl.Date, date(2024, 2, 29), date.min, date.max, date(1970, 1, 1)),
    series(pl.Time, time(5), time.min, time.max, time(5), time(0, 0, 0, 1)),
]
DECIMALS = [series(pl.Decimal(14, 3), *map(Decimal, ["1.5", "-2", "99999999999.999", "0.001", "1.5"]))]
BINARIES = [series(pl.Binary, *(text.encode() for text in TEXTS))]
BOOLEANS = [series(pl.Boolean, True, False, True, True)]
TEXT = [series(kind, *TEXTS) for kind in (pl.String, pl.Categorical, WORDS)]
STRUCTS = [{"c": text, "e": [text, None], "t": time(n), "n": 2**64 - 1 - n} for n, text in enumerate(TEXTS)] + [
    {"c": None, "e": None, "t": None, "n": None}
]
NESTED = [
    series(pl.List(pl.UInt64), [2**64 - 1, None], [], [0], []),
    series(pl.Array(pl.Int8, 2), [-128, 127], [5, None], [1, 2], [3, 4]),
    series(pl.List(pl.Categorical), ["q", None], [], ["zz"], ["q"]),
    series(pl.Array(WORDS, 2), ["q", "zz"], ["", None], ["zz", "q"], ["é", "é"]),
    series(pl.List(pl.List(WORDS)), [["q"], None], [], [[], ["zz", None]], [["é"]]),
    series(pl.Struct({"c": pl.Categorical, "e": pl.List(WORDS), "t": pl.Time, "n": pl.UInt64}), *STRUCTS),
    series(pl.List(pl.Binary), [b"\xff"], [None], [], [b""]),
]
GROUPS = [
    (NUMBERS, set()),
    (BOOLEANS, {"quantile"} | ORDER),
    (TIMES, ARITHMETIC),
    (TEXT, ARITHMETIC),
    (DECIMALS + BINARIES, ARITHMETIC | ORDER),
    (NESTED, ARITHMETIC | ORDER | {"approx_distinct"}),
]  # fmt: skip
EVERY = [(column, refused) for columns, refused in GROUPS for column in columns]
TYPES = [str(column.dtype) for column, _ in EVERY]


def made(aggregate: Aggregate, column: pl.Series) -> tuple[Accumulator, Slots, WindowStateCodec]:
    one = accumulator("n", "a", aggregate, arrow_type(column.clear()))
    return one, Slots([one]), WindowStateCodec("s", {"a": one}, {"k": pa.string()}, "window")


def slot(slots: Slots, number: int) -> Any:
    zero = np.zeros(1, np.int64)
    return slots.find(zero, zero, [b"[%d]" % number])


def feed(one: Accumulator, slots: Slots, number: int, column: pl.Series, first: int) -> None:
    times = np.arange(first, first + len(column))
    at = slot(slots, number)
    one.update(np.repeat(at, len(column)), Column(polars=column), times)
    slots.touch(at, times[-1:])


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize(("column", "refused"), EVERY, ids=TYPES)
def test_an_aggregate_of_any_type_is_right_through_a_restart_and_a_merge_or_refused_at_start(
    kind: str, column: pl.Series, refused: set[str]
) -> None:
    case = CASES[kind]
    if kind in refused:
        with pytest.raises(TopologyError, match=f"agg.{kind}"):
            made(case.aggregate, column)
        return
    one, slots, codec = made(case.aggregate, column)
    feed(one, slots, 0, column[:3], 0)
    feed(one, slots, 1, column[4:], 4)
    stored = codec.encode(slots, np.concatenate([slot(slots, 0), slot(slots, 1)]))
    one, slots, codec = made(case.aggregate, column)
    codec.decode(slots, 0, *stored)
    feed(one, slots, 0, column[3:4], 3)
    one.merge(slot(slots, 0), slot(slots, 1))
    result = one.result(slot(slots, 0))
    result.validate(full=True)
    assert result.type == one.result_type
    assert result.to_pylist() == [case.oracle(column.drop_nulls().to_list())]


def test_a_sum_of_uint64_is_one_and_wraps_around_beyond_it() -> None:
    one, slots, _ = made(agg.sum("x"), column := pl.Series([2**64 - 1, 3], dtype=pl.UInt64))
    feed(one, slots, 0, column, 0)
    assert one.result(slot(slots, 0)) == pa.array([2], pa.uint64())
