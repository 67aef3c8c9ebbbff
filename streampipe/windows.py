"""Windows in event time, as values. Times are milliseconds since the epoch; windows are [start, end)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta

Duration = str | int | timedelta
"""A length of time: "15m", "1h30m", "500ms", a timedelta, or whole milliseconds."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+)(ms|[smhdw])")


def milliseconds(duration: Duration) -> int:
    """Length of a duration in milliseconds. Raises ValueError for anything it does not understand."""
    if isinstance(duration, timedelta):
        return duration // timedelta(milliseconds=1)
    if isinstance(duration, int):
        return duration
    text = duration.strip()
    if not text or _PART.sub("", text):
        raise ValueError(f"duration {duration!r} is not like 500ms, 30s, 15m, 1h30m or 1d")
    return sum(int(n) * _UNITS_MS[unit] for n, unit in _PART.findall(text))


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of one size, end to end, aligned to the epoch (UTC).

    A window takes a record while end + grace > stream time, the record itself counted in; after that the record
    is late (the rule of Kafka Streams, checked against its own answers).
    """

    size: Duration
    grace: Duration = 0
    size_ms: int = field(init=False)
    grace_ms: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_ms", milliseconds(self.size))
        object.__setattr__(self, "grace_ms", milliseconds(self.grace))
        if self.size_ms <= 0 or self.grace_ms < 0:
            raise ValueError(f"Tumbling({self.size!r}, grace={self.grace!r}): size must be > 0 and grace >= 0")
