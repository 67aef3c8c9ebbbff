"""How far a restore is, how fast, and when it will be through: for the log and the metrics."""

from __future__ import annotations

import logging

from streampipe.clock import Clock

log = logging.getLogger("streampipe.runtime.restore")
TELL_EVERY_S = 5.0
WORTH_TELLING_S = 1.0


class RestoreProgress:
    """Counts the records of one restore, from the first one on; a line in the log every few seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done = self._first = 0
        self._started = self._told = 0.0

    def moved(self, restored: int, remaining: dict[str, int]) -> None:
        """So many records more were restored; so many are left, by store."""
        now = self._clock.monotonic_s()
        if not self._done:
            self._started, self._told, self._first = now, now, restored  # the first step's time is not known
        self._done += restored
        if any(remaining.values()):
            if now - self._told >= TELL_EVERY_S:
                self._told = now
                log.info("%s", self._line(now, remaining))
        elif self._done:
            if now - self._started >= WORTH_TELLING_S:
                log.info("state restored: %s records in %.1f s", f"{self._done:,}", now - self._started)
            self._done = 0

    def _line(self, now: float, remaining: dict[str, int]) -> str:
        left = sum(remaining.values())
        rate = max(1, self._done - self._first) / (now - self._started)
        stores = ", ".join(f"{store} {count:,}" for store, count in remaining.items() if count)
        done = 100 * self._done / (self._done + left)
        return f"restoring state: {done:.0f} %, {rate:,.0f} records/s, about {left / rate:,.0f} s left ({stores} to go)"
