"""Sliding windows of one key as Kafka Streams makes them, a record at a time: for keys with records that came late.

The rules are those of KIP-450 and of `KStreamSlidingWindowAggregate`: windows are made from windows that are there, so
that a record which was too late for its own window is missing in those that are made of windows without it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

Content = tuple[list[int], int]
"""Records by their numbers, in the order in which they came, and the largest of their times."""


@dataclass(slots=True)
class Replay:
    """The windows of a key so far."""

    difference: int
    windows: dict[int, Content] = field(default_factory=dict)
    """By start."""
    changed_by: dict[int, list[int]] = field(default_factory=dict)
    """Which records changed or made each window."""
    counted: set[int] = field(default_factory=set)
    """The records that changed or made any."""
    _starts: list[int] = field(default_factory=list)

    def take(self, record: int, time: int, close: int) -> None:
        """The next record comes, when windows that ended before `close` are closed."""
        left = time - self.difference
        starts, windows = self._starts, self.windows
        around = starts[bisect_right(starts, left) : bisect_right(starts, time)]
        later = windows[around[-1]] if around else None
        for start in around:
            self._add(windows[start], start, record, time, close)
        own = windows.get(left)
        if own is not None:
            self._add(own, left, record, time, close)
            if own[1] >= time:
                return  # a record of this time came before and has made all that there is to make
        at = bisect_left(starts, left) - 1
        before = windows[starts[at]] if at >= 0 and starts[at] >= left - self.difference else None
        nearest = before or own
        if nearest is not None and nearest[1] + 1 not in windows and nearest[1] + 1 >= left:
            self._add(None, nearest[1] + 1, record, time, close)
        if own is None:
            self._add(before if before and before[1] >= left else None, left, record, time, close)
        if later is not None and later[1] > time and time + 1 not in windows:
            self._put(time + 1, later, record)

    def _add(self, content: Content | None, start: int, record: int, time: int, close: int) -> None:
        """The window holds this content and the record, if it is open."""
        if start + self.difference >= close:
            records, last = content or ([], time)
            self._put(start, ([*records, record], max(last, time)), record)

    def _put(self, start: int, content: Content, record: int) -> None:
        if start not in self.windows:
            insort(self._starts, start)
        self.windows[start] = content
        self.changed_by.setdefault(start, []).append(record)
        self.counted.add(record)


def replayed(times: Sequence[int], closes: Sequence[int], difference: int) -> Replay:
    """The windows that records of these times make, of which record i came as those before `closes[i]` were closed."""
    replay = Replay(difference)
    for record, (time, close) in enumerate(zip(times, closes, strict=True)):
        replay.take(record, time, close)
    return replay
