"""Windows in event time, as values. Times are milliseconds since the epoch.

Tumbling and hopping windows are [start, end); sliding windows and sessions include their end, as in Kafka Streams.
"""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

Duration = str | int | timedelta
"""A length of time: "15m", "1h30m", "500ms", a timedelta, or whole milliseconds; at most 1,000 years."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+)(ms|[smhdw])")


_LONGEST_MS = 365_250 * _UNITS_MS["d"]


def milliseconds(duration: Duration) -> int:
    """Length of a duration in milliseconds.

    Raises ValueError for anything it does not understand, and for more than 1,000 years: sums of times and lengths
    are 64 bits of milliseconds, and what is to last for ever needs no more.
    """
    length = _milliseconds(duration)
    if length > _LONGEST_MS:
        raise ValueError(f"duration {duration!r} is longer than 1,000 years")
    return length


def _milliseconds(duration: Duration) -> int:
    if isinstance(duration, timedelta):
        return duration // timedelta(milliseconds=1)
    if isinstance(duration, int):
        return duration
    text = duration.strip() if isinstance(duration, str) else ""
    if not text or _PART.sub("", text):
        raise ValueError(f"duration {duration!r} is not like 500ms, 30s, 15m, 1h30m or 1d")
    return sum(int(n) * _UNITS_MS[unit] for n, unit in _PART.findall(text))


DAY_MS = _UNITS_MS["d"]
MAX_WINDOWS = 1_000
"""Hopping windows that one record may fall into."""


def _set(window: Any, **lengths: Duration) -> None:
    """Keep each length in milliseconds as well, under its name with _ms behind it."""
    for name, length in lengths.items():
        try:
            object.__setattr__(window, f"{name}_ms", milliseconds(length))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _refuse(window: object, why: str) -> ValueError:
    return ValueError(f"{window}: {why}")


def _check_zone(window: Tumbling | Hopping, *lengths_ms: int) -> None:
    """Raise ValueError unless the zone exists and the lengths are whole days, which alone have a calendar."""
    if window.zone is None:
        return
    try:
        zoneinfo.ZoneInfo(window.zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise _refuse(
            window, "zone is none of the IANA time zones that this machine knows, such as Europe/Berlin"
        ) from None
    if any(length % DAY_MS for length in lengths_ms):
        raise _refuse(window, "windows of a zone are whole days; leave zone out for shorter ones")


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of one size, end to end, aligned to the epoch plus `offset`.

    Without a `zone` in UTC. With one (an IANA name) sizes are whole days of that zone's calendar, 23 and 25 hours
    long where its clocks change. Weeks begin on Mondays with offset="4d": the epoch was a Thursday.

    A window takes a record while end + grace > stream time, the record itself counted in; after that the record
    is late (the rule of Kafka Streams, checked against its own answers).
    """

    size: Duration
    grace: Duration = field(default=0, kw_only=True)
    zone: str | None = field(default=None, kw_only=True)
    offset: Duration = field(default=0, kw_only=True)
    size_ms: int = field(init=False, repr=False)
    grace_ms: int = field(init=False, repr=False)
    offset_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _set(self, size=self.size, grace=self.grace, offset=self.offset)
        if self.size_ms <= 0 or self.grace_ms < 0 or not 0 <= self.offset_ms < self.size_ms:
            raise _refuse(self, "size must be > 0, grace >= 0 and 0 <= offset < size")
        _check_zone(self, self.size_ms)

    @property
    def advance_ms(self) -> int:
        """How far apart windows begin."""
        return self.size_ms

    @property
    def shape(self) -> str:
        """What its state depends on."""
        return f"tumbling {self.size_ms}" + _alignment(self)

    def __str__(self) -> str:
        return f"tumbling {self.size}" + _in_words(self)


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows of one size that begin every `advance`, so that they overlap. Otherwise as `Tumbling`.

    A record counts in each of its windows that is still open; it is late when all of them are closed.
    """

    size: Duration
    advance: Duration = field(kw_only=True)
    grace: Duration = field(default=0, kw_only=True)
    zone: str | None = field(default=None, kw_only=True)
    offset: Duration = field(default=0, kw_only=True)
    size_ms: int = field(init=False, repr=False)
    advance_ms: int = field(init=False, repr=False)
    grace_ms: int = field(init=False, repr=False)
    offset_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _set(self, size=self.size, advance=self.advance, grace=self.grace, offset=self.offset)
        if not 0 < self.advance_ms <= self.size_ms or self.grace_ms < 0 or not 0 <= self.offset_ms < self.advance_ms:
            raise _refuse(self, "0 < advance <= size, grace >= 0 and 0 <= offset < advance")
        if self.size_ms > MAX_WINDOWS * self.advance_ms:
            raise _refuse(self, f"a record would be in more than {MAX_WINDOWS:,} windows; choose a larger advance")
        _check_zone(self, self.size_ms, self.advance_ms)

    @property
    def shape(self) -> str:
        """What its state depends on."""
        return f"hopping {self.size_ms} {self.advance_ms}" + _alignment(self)

    def __str__(self) -> str:
        return f"hopping {self.size} advance {self.advance}" + _in_words(self)


def _alignment(window: Tumbling | Hopping) -> str:
    zone = f" {window.zone}" if window.zone else ""
    return zone + (f" offset {window.offset_ms}" if window.offset_ms else "")


def _in_words(window: Tumbling | Hopping) -> str:
    zone = f" zone {window.zone}" if window.zone else ""
    return zone + (f" offset {window.offset}" if window.offset_ms else "") + f" grace {window.grace}"


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows that move with the records: which records of a key are at most `difference` apart (KIP-450).

    Each record at t makes the window [t - difference, t], and [t + 1, t + 1 + difference] if another record of the key
    falls into that; both ends are inside. A window takes a record while end + grace >= stream time.
    """

    difference: Duration
    grace: Duration = field(default=0, kw_only=True)
    difference_ms: int = field(init=False, repr=False)
    grace_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _set(self, difference=self.difference, grace=self.grace)
        if self.difference_ms < 0 or self.grace_ms < 0:
            raise _refuse(self, "difference and grace must be >= 0")

    @property
    def shape(self) -> str:
        """What its state depends on."""
        return f"sliding {self.difference_ms}"

    def __str__(self) -> str:
        return f"sliding {self.difference} grace {self.grace}"


@dataclass(frozen=True, slots=True)
class Session:
    """Records of a key with at most `gap` between one and the next; the window is [first record, last record].

    A session takes a record, and a record between two makes one of them, while the end that it has then is not before
    stream time - grace - gap. `retention` is for emit="updates": how long a session is kept behind stream time,
    in which a late record can still join it to a session that is open, as with the retention of Kafka Streams' stores
    (a day by default, and never less than gap + grace).
    """

    gap: Duration
    grace: Duration = field(default=0, kw_only=True)
    retention: Duration = field(default="1d", kw_only=True)
    gap_ms: int = field(init=False, repr=False)
    grace_ms: int = field(init=False, repr=False)
    retention_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _set(self, gap=self.gap, grace=self.grace, retention=self.retention)
        if self.gap_ms <= 0 or self.grace_ms < 0 or self.retention_ms < 0:
            raise _refuse(self, "gap must be > 0, grace and retention >= 0")

    @property
    def shape(self) -> str:
        """What its state depends on."""
        return f"session {self.gap_ms}"

    def __str__(self) -> str:
        return f"session gap {self.gap} grace {self.grace}"


Window = Tumbling | Hopping | Sliding | Session


@dataclass(frozen=True, slots=True)
class Update:
    """Late policy: closed windows are kept for `retention` longer; a late record in it corrects the result.

    The correction is a result of the same window, at the next commit. A record beyond the retention is a dead letter.
    """

    retention: Duration
    retention_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _set(self, retention=self.retention)
        if self.retention_ms <= 0:
            raise _refuse(self, "retention must be > 0")

    def __str__(self) -> str:
        return f"update for {self.retention}"
