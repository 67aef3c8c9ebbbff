"""Aggregates against brute force, and the rules for what numbers do at their edges."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe import agg
from streampipe.aggregates import Aggregate
from streampipe.operators.accumulators import accumulator
from streampipe.operators.frame import Column

NAN = math.nan


def result(aggregate: Aggregate, kind: pa.DataType, values: list[Any], slots: list[int] | None = None) -> list[Any]:
    made = accumulator("n", "a", aggregate, kind)
    made.grow(4)
    at = np.array(slots or [0] * len(values), np.int64)
    made.update(at, Column(arrow=pa.array(values, kind)), np.zeros(len(at), np.int64))
    out: list[Any] = made.result(np.arange(4 if slots else 1)).to_pylist()
    return out


rows = st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(-(2**40), 2**40)), min_size=1)


@given(rows)
def test_every_aggregate_of_integers_equals_brute_force(rows: list[tuple[int, int | None]]) -> None:
    slots, values = [s for s, _ in rows], [v for _, v in rows]
    held = [[v for s, v in rows if s == slot and v is not None] for slot in range(4)]
    assert result(agg.count("x"), pa.int64(), values, slots) == [len(h) for h in held]
    assert result(agg.sum("x"), pa.int64(), values, slots) == [sum(h) for h in held]
    assert result(agg.min("x"), pa.int64(), values, slots) == [min(h, default=None) for h in held]
    assert result(agg.max("x"), pa.int64(), values, slots) == [max(h, default=None) for h in held]
    assert result(agg.collect("x", limit=2), pa.int64(), values, slots) == [h[:2] for h in held]
    assert result(agg.mean("x"), pa.int64(), values, slots) == [sum(h) / len(h) if h else None for h in held]


@pytest.mark.parametrize("kind", [pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.date32(), pa.time32("ms"),
                                  pa.time64("us"), pa.duration("ms")])  # fmt: skip
def test_extremes_of_times_keep_their_type(kind: pa.DataType) -> None:
    bits = pa.int32() if kind.bit_width == 32 else pa.int64()
    values = pa.array([5, None, 3, 9], bits).cast(kind)
    for aggregate, at in ((agg.min("t"), 2), (agg.max("t"), 3)):
        assert result(aggregate, kind, values.to_pylist()) == [values[at].as_py()]


def test_a_sum_of_booleans_counts_the_true_ones() -> None:
    assert result(agg.sum("b"), pa.bool_(), [True, None, False, True]) == [2]


def test_a_sum_of_integers_wraps_around_beyond_64_bits_as_in_java() -> None:
    assert result(agg.sum("x"), pa.int64(), [2**63 - 1, 1]) == [-(2**63)]


def test_extremes_hold_at_the_ends_of_64_bits() -> None:
    assert result(agg.min("x"), pa.int64(), [2**63 - 1, -(2**63)]) == [-(2**63)]
    assert result(agg.max("x"), pa.int64(), [2**63 - 1, -(2**63)]) == [2**63 - 1]


@pytest.mark.parametrize("aggregate", [agg.sum("y"), agg.mean("y"), agg.min("y"), agg.max("y")])
@pytest.mark.parametrize("values", [[NAN, 1.0], [1.0, NAN], [NAN]])
def test_not_a_number_stays_in_whatever_order_it_comes(aggregate: Aggregate, values: list[float]) -> None:
    assert math.isnan(result(aggregate, pa.float64(), values)[0])


def test_a_quantile_leaves_out_what_is_no_finite_number() -> None:
    assert result(agg.quantile("y", 1), pa.float64(), [NAN, math.inf, -math.inf, None]) == [None]
    assert result(agg.quantile("y", 1), pa.float64(), [NAN, 0.0, math.inf]) == [0.0]


@pytest.mark.parametrize("value", [sys.float_info.max, -sys.float_info.max, 1e-9, -1e-9, sys.float_info.min, 0.0])
def test_a_quantile_of_the_largest_and_smallest_numbers_is_within_its_error(value: float) -> None:
    [got] = result(agg.quantile("y", 0.5), pa.float64(), [value])
    assert math.isclose(got, value, rel_tol=0.01 + 1e-9, abs_tol=1e-9)


MERGED = [agg.count("x"), agg.sum("x"), agg.mean("x"), agg.min("x"), agg.max("x"), agg.quantile("x", 0.5),
          agg.collect("x", limit=3)]  # fmt: skip


@given(rows, rows)
def test_merging_two_parts_gives_what_one_after_the_other_gives(
    early: list[tuple[int, int | None]], late: list[tuple[int, int | None]]
) -> None:
    for aggregate in MERGED:
        made = accumulator("n", "a", aggregate, pa.int64())
        made.grow(12)
        for part, first in ((early, 0), (late, 4), (early, 8), (late, 8)):
            slots = np.array([s + first for s, _ in part], np.int64)
            made.update(slots, Column(arrow=pa.array([v for _, v in part], pa.int64())), np.arange(len(part)))
        source = made.result(np.arange(4, 8))
        made.merge(np.arange(4), np.arange(4, 8))
        assert made.result(np.arange(4)) == made.result(np.arange(8, 12)), aggregate.kind
        assert made.result(np.arange(4, 8)) == source, "a source stays as it is"
