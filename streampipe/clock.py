"""The only places that read a clock. Pure code takes `now` as a parameter instead."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock and monotonic time; tests and the simulator bring their own."""

    def now_ms(self) -> int:
        """Wall-clock time in milliseconds since the epoch (may jump)."""

    def monotonic_s(self) -> float:
        """Monotonic time in seconds, for intervals and deadlines."""

    def sleep_s(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Wall-clock time in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Monotonic time in seconds."""
        return time.monotonic()

    def sleep_s(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
