"""What windows are, by definition: a record at a time, with nothing clever, for one partition.

An oracle takes (key, number, time) in the order in which records come, and knows what was said about each window: the
numbers of its records, in the order that an aggregate sees them. `late` are the numbers of the records in no window.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from streampipe.windows import DAY_MS, Hopping, Session, Sliding, Tumbling, Window

Row = tuple[str, int, int]
At = tuple[str, int, int]
"""Key, start and end of a window."""


@dataclass
class Oracle:
    """`retention` is how much longer than its grace a window is corrected."""

    window: Window
    final: bool = True
    retention: int = 0
    now: int = -(10**15)
    late: list[int] = field(default_factory=list)
    held: dict[At, list[int]] = field(default_factory=dict)
    """Windows that still take records, or may."""
    said: dict[At, list[int]] = field(default_factory=dict)
    """The last result of each window that has one; what was taken back is not in it."""
    last: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    """Largest time in each sliding window of each key."""

    def take(self, row: Row) -> None:
        key, number, time = row
        self.now = max(self.now, time)
        self.settle()
        if not self.counted(key, number, time):
            self.late.append(number)
        self.settle()

    def settle(self) -> None:
        """Closed windows say what they hold; those that are over are not held any more."""
        for at, numbers in list(self.held.items()):
            if not self.final or self.closes(at) <= self.now:
                self.said[at] = numbers
            if self.over(at):
                del self.held[at]

    def close(self) -> None:
        """The end of all time."""
        self.now = 10**15
        self.settle()

    def counted(self, key: str, number: int, time: int) -> bool:
        raise NotImplementedError

    def closes(self, at: At) -> int:
        """Stream time at which a window closes."""
        raise NotImplementedError

    def over(self, at: At) -> bool:
        return self.closes(at) + self.retention <= self.now


class Aligned(Oracle):
    """Tumbling and hopping."""

    def counted(self, key: str, number: int, time: int) -> bool:
        assert isinstance(self.window, Tumbling | Hopping)
        windows = [(key, s, e) for s, e in places(self.window, time)]
        taken = [at for at in windows if self.closes(at) + self.retention > self.now]
        for at in taken:
            self.held.setdefault(at, []).append(number)
        return bool(taken)

    def closes(self, at: At) -> int:
        return at[2] + self.window.grace_ms


def places(window: Tumbling | Hopping, time: int) -> Iterator[tuple[int, int]]:
    """Start and end of every window that a time is in; none begins before the epoch's did, or on a day left out."""
    if window.zone is None:
        size, advance = window.size_ms, window.advance_ms
        first = max(n for n in range(-2, 1) if n * advance + window.offset_ms <= 0)
        n = max(first, (time - size) // advance - 2)
        while n * advance + window.offset_ms <= time:
            start = n * advance + window.offset_ms
            if time < start + size:
                yield start, start + size
            n += 1
        return
    days, step = window.size_ms // DAY_MS, window.advance_ms // DAY_MS
    near = time // DAY_MS // step
    for n in range(near - days // step - 2, near + 3):
        start, end = (local(window.zone, n * step + d, window.offset_ms) for d in (0, days))
        following = local(window.zone, (n + 1) * step, window.offset_ms)
        if start <= time < end and start < following and following > 0:
            yield start, end


def missed(window: Window, time: int) -> str:
    """The window that a dead letter of a record that came too late for all of its windows names: the last of them.

    Of a sliding window that is the one which ends with the record, of a session what the record would have been alone.
    """
    if isinstance(window, Tumbling | Hopping):
        start, end = max(places(window, time))
        return f"[{text(start)}, {text(end)})"
    start = time - window.difference_ms if isinstance(window, Sliding) else time
    return f"[{text(start)}, {text(time)}]"


def text(time: int) -> str:
    """A time as dead letters write it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(zone: str, day: int, offset_ms: int) -> int:
    """When a day of a zone begins, in ms since the epoch, by the clocks of that zone."""
    clock = datetime(1970, 1, 1, tzinfo=ZoneInfo(zone)) + timedelta(days=day, milliseconds=offset_ms)
    return round(clock.timestamp() * 1000)


class Sessions(Oracle):
    """Intervals that merge."""

    def counted(self, key: str, number: int, time: int) -> bool:
        assert isinstance(self.window, Session)
        gap = self.window.gap_ms
        near = sorted(at for at in self.held if at[0] == key and at[1] <= time + gap and at[2] >= time - gap)
        made = (key, min([time, *(s for _, s, _ in near)]), max([time, *(e for *_, e in near)]))
        if made[2] < self.now - self.window.grace_ms - gap - self.retention:
            return False
        numbers = [n for at in near for n in self.held.pop(at)]
        for at in near:
            self.said.pop(at, None)
        self.held[made] = [*numbers, number]
        return True

    def closes(self, at: At) -> int:
        assert isinstance(self.window, Session)
        return at[2] + self.window.gap_ms + self.window.grace_ms + 1

    def over(self, at: At) -> bool:
        assert isinstance(self.window, Session)
        kept = 0 if self.final else max(0, self.window.retention_ms - self.window.gap_ms - self.window.grace_ms)
        return self.closes(at) + max(self.retention, kept) <= self.now


class SlidingWindows(Oracle):
    """Kafka Streams' own steps (KStreamSlidingWindowAggregate), on a store that forgets nothing."""

    def counted(self, key: str, number: int, time: int) -> bool:
        difference = self.window.difference_ms  # type: ignore[union-attr]
        closed_before = self.now - self.window.grace_ms - self.retention
        if time + 1 + difference < closed_before + 1:
            return False
        last = self.last[key]
        before = {start: (list(self.held[key, start, start + difference]), last[start]) for start in last}
        counted = False

        def put(start: int, old: tuple[list[int], int] | None) -> None:
            nonlocal counted
            if start + difference >= closed_before:
                numbers, latest = old or ([], time)
                self.held[key, start, start + difference] = [*numbers, number]
                last[start] = max(latest, time)
                counted = True

        left, right, nearest = None, None, None
        for start in sorted((s for s in before if time - 2 * difference <= s <= time), reverse=True):
            end = start + difference
            if end > time:
                right = right or before[start]
                put(start, before[start])
            elif end == time:
                put(start, before[start])
                if before[start][1] == time:
                    return counted
                nearest = before[start][1]
            else:
                left, nearest = before[start], before[start][1]
                break
        if nearest is not None and nearest + 1 not in before and nearest + 1 + difference >= time:
            put(nearest + 1, None)
        if time - difference not in before:
            put(time - difference, left if left and left[1] >= time - difference else None)
        if time + 1 not in before and right is not None and right[1] > time:
            self.held[key, time + 1, time + 1 + difference] = right[0]
            last[time + 1] = right[1]
            counted = True
        return counted

    def closes(self, at: At) -> int:
        return at[2] + self.window.grace_ms + 1

    def over(self, at: At) -> bool:
        return False


def oracle(window: Window, *, final: bool = True, retention: int = 0) -> Oracle:
    """The oracle of a window."""
    kind = Sessions if isinstance(window, Session) else SlidingWindows if isinstance(window, Sliding) else Aligned
    return kind(window, final, retention)
