"""What is due when, for many slots at once, without ever looking at those that are not due.

Sorted runs, merged as they grow, as in a log-structured tree: adding n slots costs O(n log n) once and O(log) merges of
each; asking costs a binary search in each of O(log) runs, however many slots wait and however fast time goes.
"""

from __future__ import annotations

import numpy as np

from streampipe.operators.frame import Mask
from streampipe.records import IntArray

FOREVER = np.iinfo(np.int64).max


class Deadlines:
    """Slots by the time in ms at which something of them is due. A slot may be in it several times."""

    def __init__(self) -> None:
        self._runs: list[tuple[IntArray, IntArray]] = []
        self.first = FOREVER
        """The earliest time of all."""

    def __len__(self) -> int:
        return sum(len(times) for times, _ in self._runs)

    def add(self, times: IntArray, slots: IntArray) -> None:
        """Something is due at these times."""
        if not len(times):
            return
        self._runs.append(_sorted(times, slots))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            later, earlier = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted(*(np.concatenate(both) for both in zip(earlier, later, strict=True))))
        self.first = min(self.first, int(times.min()))

    def keep(self, kept: Mask) -> None:
        """Forget all slots but these."""
        runs = [(times[kept[slots]], slots[kept[slots]]) for times, slots in self._runs]
        self._runs = [run for run in runs if len(run[0])]
        self.first = min((int(times[0]) for times, _ in self._runs), default=FOREVER)

    def pop(self, until: int) -> IntArray:
        """Take out what is due at `until` or before."""
        if until < self.first:
            return np.zeros(0, np.int64)
        due, rest = [], []
        for times, slots in self._runs:
            n = int(np.searchsorted(times, until, "right"))
            due.append(slots[:n])
            if n < len(times):
                rest.append((times[n:], slots[n:]))
        self._runs = rest
        self.first = min((int(times[0]) for times, _ in rest), default=FOREVER)
        return np.concatenate(due)


def _sorted(times: IntArray, slots: IntArray) -> tuple[IntArray, IntArray]:
    order = np.argsort(times, kind="stable")
    return times[order], slots[order]
