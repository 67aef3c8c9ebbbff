"""Stream time: the largest event time seen so far, by partition. It alone decides what is late and what is over."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from streampipe.operators.frame import Frame
from streampipe.records import IntArray

NEVER = np.iinfo(np.int64).min // 4
"""Stream time in ms before the first record; room is left to add sizes and graces to it."""
LAST_TIME = 2**61
"""Event times that can be used are below, in ms, so that sizes and graces can be added to them."""


class StreamTimes:
    """Stream time of each open partition in ms, and which of them moved since they were last saved."""

    def __init__(self) -> None:
        self._now: dict[int, int] = {}
        self._saved: dict[int, int] = {}
        self._ahead: dict[int, int] | None = None
        """While time stands, to where it will go."""

    def open(self, partition: int) -> None:
        """A partition comes, at the beginning of time."""
        self._now[partition] = self._saved[partition] = NEVER

    def restore(self, partition: int, time: int) -> None:
        """A partition is at this time, and that is saved."""
        self._now[partition] = self._saved[partition] = time

    def close(self, partition: int) -> None:
        """A partition goes."""
        self._now.pop(partition, None)
        self._saved.pop(partition, None)

    def __getitem__(self, partition: int) -> int:
        return self._now[partition]

    def items(self) -> Collection[tuple[int, int]]:
        """Every open partition with its stream time."""
        return self._now.items()

    def running(self, frame: Frame) -> IntArray:
        """Stream time as each row sees it, its own event time included; the partitions' times move on."""
        seen = np.empty(len(frame), np.int64)
        for partition in np.unique(frame.partitions).tolist():
            rows = np.flatnonzero(frame.partitions == partition)
            times = np.maximum(np.maximum.accumulate(frame.timestamps[rows]), self._now[partition])
            seen[rows] = times
            moving = self._now if self._ahead is None else self._ahead
            moving[partition] = max(int(times[-1]), moving.get(partition, NEVER))
        return seen

    def hold(self) -> None:
        """Let time stand: until `go_on`, rows that move it on move it for themselves alone."""
        self._ahead = {}

    def go_on(self) -> None:
        """Time goes to where it has been moved."""
        ahead, self._ahead = self._ahead or {}, None
        for partition, time in ahead.items():
            self.follow(partition, time)

    def follow(self, partition: int, time: int) -> None:
        """An open partition's time is at least this one; others are not concerned."""
        if partition in self._now:
            self._now[partition] = max(self._now[partition], time)

    def take_moved(self) -> list[tuple[int, int]]:
        """Partitions whose time moved since they were last saved, with the time; they count as saved from now on."""
        moved = [(p, t) for p, t in self._now.items() if t != self._saved[p]]
        self._saved.update(moved)
        return moved


def iso(timestamp_ms: int) -> str:
    """ISO 8601 in UTC; NumPy's, since datetime ends with the year 9999."""
    return str(np.datetime_as_string(np.datetime64(timestamp_ms, "ms"), timezone="UTC"))
