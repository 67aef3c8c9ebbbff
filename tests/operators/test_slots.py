"""Slots against a dictionary, through growth and reuse."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streampipe.operators.accumulators.moments import Count
from streampipe.operators.slots import Slots

Group = tuple[int, int, bytes]


class SlotsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.count = Count()
        self.slots = Slots([self.count])
        self.model: dict[Group, tuple[int, int]] = {}

    @rule(first=st.integers(0, 6_000), n=st.sampled_from([1, 10, 1_500, 3_200]), time=st.integers(0, 100))
    def touch(self, first: int, n: int, time: int) -> None:
        groups: list[Group] = [(i % 3, i * 10, b"k%d" % i) for i in range(first, first + n)]
        partitions, starts = (np.array([g[i] for g in groups], np.int64) for i in (0, 1))
        at = self.slots.find(partitions, starts, [g[2] for g in groups])
        self.slots.touch(at, np.full(n, time))
        self.count.update(at, None, np.full(n, time))
        for g in groups:
            old, largest = self.model.get(g, (0, -1))
            self.model[g] = (old + 1, max(largest, time))

    @rule(partition=st.integers(0, 2), below=st.integers(0, 60_000))
    def free(self, partition: int, below: int) -> None:
        live = np.flatnonzero(self.slots.live)
        self.slots.free(live[(self.slots.partition[live] == partition) & (self.slots.start[live] < below)])
        self.model = {g: v for g, v in self.model.items() if not (g[0] == partition and g[1] < below)}

    @invariant()
    def equal(self) -> None:
        slots, live = self.slots, np.flatnonzero(self.slots.live)
        held = zip(
            slots.partition[live].tolist(), slots.start[live].tolist(), (slots.keys[i] for i in live),
            self.count.arrays[0][live].tolist(), slots.timestamp[live].tolist(), strict=True,
        )  # fmt: skip
        assert {(p, s, k): (n, t) for p, s, k, n, t in held} == self.model
        assert len(slots) == len(live) == len(self.model)


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=10, stateful_step_count=8)
