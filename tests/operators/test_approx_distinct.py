"""Approximate numbers of distinct values beyond those that are counted exactly: how far off, and what never shows."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from streampipe import agg
from streampipe.operators.accumulators import Accumulator, accumulator
from streampipe.operators.frame import Column
from streampipe.operators.slots import Slots
from streampipe.operators.window_state import WindowStateCodec

SIGMAS = 6
"""A standard normal is further off once in 500 million times; hashes are the same in every run anyway."""


def sketches(count: int, precision: int = 12) -> tuple[Slots, Accumulator]:
    """An accumulator with so many slots in use, from 0 on."""
    one = accumulator("n", "a", agg.approx_distinct("x", precision=precision), pa.int64())
    slots, zeros = Slots([one]), np.zeros(count, np.int64)
    made = slots.find(zeros, zeros, [b"[%d]" % group for group in range(count)])
    assert sorted(made.tolist()) == list(range(count))
    return slots, one


def add(one: Accumulator, slot: int, values: range, again_after: int = 10**9) -> None:
    """Add values to a slot, as one batch."""
    column = pa.array(np.arange(values.start, values.stop) % again_after)
    one.update(np.full(len(column), slot), Column(arrow=column), np.zeros(len(column), np.int64))


def estimates(one: Accumulator, *slots: int) -> list[int]:
    numbers: list[int] = one.result(np.array(slots)).to_pylist()
    return numbers


@pytest.mark.parametrize("precision", [7, 12, 14])
@pytest.mark.parametrize("distinct", [600, 3_000, 10_000, 30_000, 100_000])
def test_an_estimate_has_the_documented_standard_error_and_no_bias(distinct: int, precision: int) -> None:
    count = 25
    _, one = sketches(count, precision)
    for group in range(count):
        add(one, group, range(group * 10**6, group * 10**6 + distinct))
    errors = np.array(estimates(one, *range(count))) / distinct - 1
    documented = 1.04 / math.sqrt(2**precision)
    assert np.abs(errors).max() <= SIGMAS * documented
    assert abs(errors.mean()) <= SIGMAS * documented / math.sqrt(count)
    # a sum of squares of `count` standard normals has the mean `count` and the variance 2 `count`
    assert (errors**2).mean() <= documented**2 * (1 + SIGMAS * math.sqrt(2 / count))


@pytest.mark.parametrize("distinct", [1, 510, 511])
def test_numbers_below_512_are_exact(distinct: int) -> None:
    _, one = sketches(1)
    for _ in range(2):
        add(one, 0, range(distinct))
        assert estimates(one, 0) == [distinct]


def test_an_estimate_of_texts_is_as_near() -> None:
    one = accumulator("n", "a", agg.approx_distinct("x"), pa.string())
    one.grow(1)
    column = pa.array([f"somebody-{n}@example.org" for n in range(50_000)])
    one.update(np.zeros(len(column), np.int64), Column(arrow=column), np.zeros(len(column), np.int64))
    assert abs(estimates(one, 0)[0] / 50_000 - 1) < SIGMAS * 0.01625


def test_neither_repetition_nor_order_nor_batches_change_an_estimate() -> None:
    _, one = sketches(3)
    add(one, 0, range(20_000))
    for first in range(15_000, -1, -5_000):
        add(one, 1, range(first, first + 5_000))
    add(one, 2, range(60_000), again_after=20_000)
    assert len(set(estimates(one, 0, 1, 2))) == 1


@pytest.mark.parametrize(
    ("early", "late"),
    [
        (range(300), range(200, 700)),  # both exact, the union not
        (range(300), range(5_000)),
        (range(5_000), range(4_900, 5_200)),
        (range(40_000), range(30_000, 100_000)),
        (range(1_000, 9_000), range(1_000, 9_000)),
    ],
)
def test_two_sketches_merged_are_the_sketch_of_both(early: range, late: range) -> None:
    slots, one = sketches(3)
    add(one, 0, early)
    add(one, 1, late)
    add(one, 2, early)
    add(one, 2, late)
    before = estimates(one, 1)
    one.merge(np.array([0]), np.array([1]))
    assert estimates(one, 1) == before
    assert estimates(one, 0) == estimates(one, 2)
    _, [merged, whole] = codec(one).encode(slots, np.array([0, 2]))
    assert merged == whole


@pytest.mark.parametrize("distinct", [511, 512, 600, 100_000])
def test_a_sketch_that_was_restored_says_the_same_and_goes_on_the_same(distinct: int) -> None:
    slots, one = sketches(1)
    add(one, 0, range(distinct))
    keys, values = codec(one).encode(slots, np.array([0]))

    restored, other = sketches(0)
    codec(other).decode(restored, 0, keys, values)
    [slot] = np.flatnonzero(restored.live).tolist()
    assert estimates(other, slot) == estimates(one, 0)
    for each, home in ((one, 0), (other, slot)):
        add(each, home, range(distinct // 2, distinct * 2))
    assert estimates(other, slot) == estimates(one, 0)
    assert codec(other).encode(restored, np.array([slot])) == codec(one).encode(slots, np.array([0]))


def codec(one: Accumulator) -> WindowStateCodec:
    return WindowStateCodec("w", {"a": one}, {"g": pa.int64()}, "tumbling 5")
