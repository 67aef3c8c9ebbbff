"""Where windows of fixed places begin and end: numbered one after the other, in UTC or in the calendar of a time zone.

Windows of event times from the epoch on have numbers from `first` on; number n begins at `starts(n)` and ends before
`ends(n)`, both growing with n, but for windows that nothing can be in, which end where they begin. The windows of one
time are the last `depth` ones up to `latest(time)`, as far as they have not ended.
"""

from __future__ import annotations

import zoneinfo
from datetime import MAXYEAR, datetime, timedelta
from typing import Protocol

import numpy as np

from streampipe.records import IntArray
from streampipe.windows import DAY_MS, Hopping, Tumbling

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local times, whose zone is another matter
_LAST_DAY = (MAXYEAR - 1 - 1970) * 365
_MS = timedelta(milliseconds=1)


class Alignment(Protocol):
    """Numbers windows. All times are in ms."""

    depth: int
    """How many windows a time is in, at most."""
    first: int

    def latest(self, times: IntArray) -> IntArray:
        """Number of the last window that begins at or before each time."""

    def starts(self, numbers: IntArray) -> IntArray:
        """Where these windows begin."""

    def ends(self, numbers: IntArray) -> IntArray:
        """Where these windows end; the end is outside."""


def alignment(window: Tumbling | Hopping) -> Alignment:
    """The alignment of a window."""
    return Fixed(window) if window.zone is None else Calendar(window, window.zone)


class Fixed:
    """Windows at multiples of `advance` since the epoch, plus the offset."""

    def __init__(self, window: Tumbling | Hopping) -> None:
        self._size, self._advance, self._offset = window.size_ms, window.advance_ms, window.offset_ms
        self.depth = -(-self._size // self._advance)
        self.first = -self._offset // self._advance

    def latest(self, times: IntArray) -> IntArray:
        """Number of the last window that begins at or before each time."""
        return (times - self._offset) // self._advance if self._offset else times // self._advance

    def starts(self, numbers: IntArray) -> IntArray:
        """Where these windows begin."""
        return numbers * self._advance + self._offset

    def ends(self, numbers: IntArray) -> IntArray:
        """Where these windows end."""
        return numbers * self._advance + (self._offset + self._size)


class Calendar:
    """Windows of whole days of a time zone, from local midnight plus the offset.

    A local time that comes twice, as clocks go back, counts as the first one; one that never comes, as they go
    forward, as the same moment counted by the clock of before. Beyond year 9998 the offset to UTC stays as it is.

    No window begins on a day that the zone left out, as Pacific/Apia did 2011-12-30: it would begin at the same moment
    as the next one, and the two could not be told apart. Its number is that of an empty window.
    """

    def __init__(self, window: Tumbling | Hopping, zone: str) -> None:
        self._zone = zoneinfo.ZoneInfo(zone)
        self._advance, self._offset = window.advance_ms, window.offset_ms
        self._size_days, self._advance_days = window.size_ms // DAY_MS, window.advance_ms // DAY_MS
        self.depth = -(-self._size_days // self._advance_days)
        self._known: dict[int, int] = {}
        self.first = int(self.latest(np.zeros(1, np.int64))[0])

    def latest(self, times: IntArray) -> IntArray:
        """Number of the last window that begins at or before each time."""
        days = np.unique(times // DAY_MS)
        # local time is less than a day away from UTC, so the window is one of these
        low = ((days - 1) * DAY_MS - self._offset) // self._advance
        high = ((days + 2) * DAY_MS - self._offset) // self._advance
        near = np.unique(np.concatenate([low + i for i in range(int((high - low).max(initial=0)) + 1)]))
        found: IntArray = near[np.searchsorted(self.starts(near), times, "right") - 1]
        return found

    def starts(self, numbers: IntArray) -> IntArray:
        """Where these windows begin."""
        return self._moments(numbers * self._advance_days)

    def ends(self, numbers: IntArray) -> IntArray:
        """Where these windows end; one that begins on a day left out, where it begins."""
        ends = self._moments(numbers * self._advance_days + self._size_days)
        if self._advance_days > 1:  # no zone ever left out more than a day
            return ends
        starts = self.starts(numbers)
        return np.where(starts == self.starts(numbers + 1), starts, ends)

    def _moments(self, days: IntArray) -> IntArray:
        distinct, of = np.unique(days, return_inverse=True)
        return np.array([self._moment(day) for day in distinct.tolist()], np.int64)[of]

    def _moment(self, day: int) -> int:
        """When a local day begins, plus the offset, in ms since the epoch."""
        if (known := self._known.get(day)) is None:
            clock = _EPOCH + timedelta(days=min(day, _LAST_DAY), milliseconds=self._offset)
            ahead = clock.replace(tzinfo=self._zone).utcoffset()
            assert ahead is not None
            known = self._known[day] = day * DAY_MS + self._offset - ahead // _MS
        return known
