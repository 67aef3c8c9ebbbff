"""Deadlines against a list."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streampipe.operators.deadlines import FOREVER, Deadlines

entries = st.lists(st.tuples(st.integers(-5, 50), st.integers(0, 9)), max_size=6)
steps = st.lists(st.one_of(entries, st.integers(-10, 60)), max_size=20)


@given(steps)
def test_what_is_due_is_what_a_list_would_say(steps: list[list[tuple[int, int]] | int]) -> None:
    deadlines, model = Deadlines(), list[tuple[int, int]]()
    for step in steps:
        if isinstance(step, int):
            due = sorted(slot for time, slot in model if time <= step)
            model = [(time, slot) for time, slot in model if time > step]
            assert sorted(deadlines.pop(step).tolist()) == due
        else:
            model += step
            times, slots = np.array(step, np.int64).reshape(-1, 2).T
            deadlines.add(times, slots)
        assert len(deadlines) == len(model)
        assert deadlines.first == min((time for time, _ in model), default=FOREVER)


def test_asking_looks_at_few_places_however_many_slots_wait() -> None:
    deadlines = Deadlines()
    rng = np.random.default_rng(1)
    for n in range(1, 2_000):
        deadlines.add(rng.integers(0, 10**9, 1), np.array([n]))
        assert len(deadlines._runs) <= math.log2(n) + 1
