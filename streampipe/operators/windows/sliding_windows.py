"""Which sliding windows there are over the records of a key, and which records are in each: pure times, no state.

A record at t makes the window [t - difference, t], and [t + 1, t + 1 + difference] if another record is in that
(KIP-450). For records that came within their grace that is all there is to say, and it is said in columns.

A record that came later than that, when its own window was closed already, counts in what was open of the windows that
others had made. Which of its windows count it, and which that are made later, follows from the order in which all
records of the key came: `sliding_replay` goes through that as Kafka Streams does, a record at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streampipe.operators.frame import Mask
from streampipe.operators.stream_time import NEVER
from streampipe.operators.windows.sliding_replay import replayed
from streampipe.records import IntArray


@dataclass(frozen=True, slots=True)
class Held:
    """Records of keys numbered from 0, each key's in the order in which they came. All times are in ms.

    `seen` is stream time as the record saw it, itself included; `pending` are those that came since the last flush.
    """

    key: IntArray
    time: IntArray
    seen: IntArray
    pending: Mask


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of `key[w]` from `start[w]`. Its records are `members[low[w] : high[w]]`, positions in `Held`.

    `touched[w]` is the largest `seen` of the pending records that changed it or made it, NEVER without any.
    """

    key: IntArray
    start: IntArray
    low: IntArray
    high: IntArray
    touched: IntArray
    members: IntArray

    def take(self, which: IntArray) -> Windows:
        """These windows."""
        low, high = self.low[which], self.high[which]
        return Windows(self.key[which], self.start[which], low, high, self.touched[which], self.members)

    def newest(self, times: IntArray) -> IntArray:
        """The largest of `times`, which are those of `Held`, in each window."""
        ranges = np.stack([self.low, self.high], axis=1).ravel()
        found: IntArray = np.maximum.reduceat(np.append(times[self.members], NEVER), ranges)[::2]
        return found

    def pairs(self) -> tuple[IntArray, IntArray]:
        """(window, record) for each record in each window: by window, and in it in the order in which they came."""
        sizes = self.high - self.low
        windows = np.repeat(np.arange(len(sizes)), sizes)
        offsets = np.arange(len(windows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        records = self.members[self.low[windows] + offsets]
        order = np.lexsort((records, windows))
        return windows, records[order]


def windows_of(held: Held, difference: int, takes_for: int) -> Windows:
    """Every window of the records. A window takes records while it ends no more than `takes_for` behind stream time."""
    slow = np.unique(held.key[held.time < held.seen - takes_for])
    fast = np.flatnonzero(~np.isin(held.key, slow))
    parts = [_in_columns(held, fast, difference)]
    parts += [_one_by_one(held, np.flatnonzero(held.key == key), key, difference, takes_for) for key in slow.tolist()]
    return _together(parts)


def _together(parts: list[Windows]) -> Windows:
    bases = np.cumsum([0, *(len(part.members) for part in parts)])
    key, start, touched, members = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("key", "start", "touched", "members")
    )
    low, high = (
        np.concatenate([getattr(part, name) + base for part, base in zip(parts, bases.tolist(), strict=False)])
        for name in ("low", "high")
    )
    return Windows(key, start, low, high, touched, members)


def _in_columns(held: Held, own: IntArray, difference: int) -> Windows:
    """Windows of records of which none came too late for its own."""
    order = own[np.lexsort((held.time[own], held.key[own]))]
    key, time = held.key[order], held.time[order]
    first = np.flatnonzero((np.diff(key, prepend=-1) != 0) | (np.diff(time, prepend=NEVER) != 0))
    after = np.append(first, len(order))[1:]
    key, at = key[first], time[first]
    left_low = _positions(held, order, key, at - difference, "left")
    right_high = _positions(held, order, key, at + 1 + difference, "right")
    # a right window that ends at a record is the left window of that one
    right = (right_high > after) & (time[right_high - 1] != at + 1 + difference) if len(order) else first > 0
    pending = np.where(held.pending[order], held.seen[order], NEVER)
    # made by its record if no earlier one of that time had made it already
    made = np.where(_reduced(np.logical_and, held.pending[order], first), _reduced(np.maximum, pending, first), NEVER)
    low, high = np.concatenate([left_low, after[right]]), np.concatenate([after, right_high[right]])
    made = np.concatenate([np.full(len(first), NEVER), made[right]])
    start = np.concatenate([at - difference, at[right] + 1])
    return Windows(np.concatenate([key, key[right]]), start, low, high, _touched(pending, low, high, made), order)


def _reduced(how: np.ufunc, values: np.ndarray, first: IntArray) -> np.ndarray:
    """One value for each run of values, which begin at `first`."""
    return how.reduceat(values, first) if len(first) else values


def _touched(pending: IntArray, low: IntArray, high: IntArray, made: IntArray) -> IntArray:
    """The largest of `pending[low[w] : high[w]]` and `made[w]`."""
    counts = np.concatenate([[0], np.cumsum(pending != NEVER)])
    some = np.flatnonzero(counts[high] > counts[low])
    if len(some):
        ranges = np.stack([low[some], high[some]], axis=1).ravel()
        made[some] = np.maximum(made[some], np.maximum.reduceat(np.append(pending, NEVER), ranges)[::2])
    return made


def _positions(held: Held, order: IntArray, key: IntArray, times: IntArray, side: str) -> IntArray:
    """Where in `order` (by key and time) the records of each key begin that are not before (or are after) a time."""
    distinct, ranks = np.unique(held.time[order], return_inverse=True)
    wide = len(distinct) + 1  # keys and ranks together, in one number that cannot overflow
    wanted = key * wide + np.searchsorted(distinct, times, side)  # type: ignore[call-overload]
    found: IntArray = np.searchsorted(held.key[order] * wide + ranks, wanted, "left")
    return found


def _one_by_one(held: Held, own: IntArray, key: int, difference: int, takes_for: int) -> Windows:
    """Windows of a key of which some record came too late for its own."""
    found = replayed(held.time[own].tolist(), (held.seen[own] - takes_for).tolist(), difference)
    pending = np.where(held.pending[own], held.seen[own], NEVER)
    starts = list(found.windows)
    touched = [int(pending[found.changed_by[start]].max()) for start in starts]
    members = [own[records] for records, _ in found.windows.values()]
    ends = np.cumsum([0, *map(len, members)])
    return Windows(
        np.full(len(starts), key), np.array(starts, np.int64), ends[:-1], ends[1:], np.array(touched, np.int64),
        np.concatenate([np.zeros(0, np.int64), *members]),
    )  # fmt: skip
