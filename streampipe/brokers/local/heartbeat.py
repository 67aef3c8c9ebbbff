"""The thread that keeps a consumer's membership while its handler is busy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread

from streampipe.brokers.local import groups
from streampipe.brokers.local.database import Database
from streampipe.clock import Clock
from streampipe.errors import StreampipeError


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which a silent member, a member that does not poll, or a transaction is given up."""

    session_s: float = 6.0
    max_poll_interval_s: float = 300.0
    transaction_s: float = 15.0
    heartbeats: bool = True
    """Whether a thread keeps the session of a member that is busy."""


class Heartbeat(Thread):
    """Keeps a member's session while its handler is busy, but not for longer than the max poll interval."""

    def __init__(self, open_db: Callable[[], Database], clock: Clock, timeouts: Timeouts, group: str) -> None:
        super().__init__(name=f"heartbeat-{group}", daemon=True)
        self._open_db = open_db
        self._clock = clock
        self._timeouts = timeouts
        self._interval_s = timeouts.session_s / 3
        self._group = group
        self._stopped = Event()
        self._beaten_at_s = self._polled_at_s = clock.monotonic_s()
        self.member = ""

    def deadline_ms(self) -> int:
        """When a session prolonged now ends."""
        return self._clock.now_ms() + int(self._timeouts.session_s * 1000)

    def polled(self, db: Database) -> None:
        """Note that the member polls, and beat on its connection in case the thread gets no chance to."""
        self._polled_at_s = self._clock.monotonic_s()
        if self._polled_at_s - self._beaten_at_s > self._interval_s:
            self._beat(db)

    def run(self) -> None:
        """Beat three times a session, and leave the group for a member that stopped polling."""
        db = None
        while not self._stopped.wait(self._interval_s):
            try:
                db = db or self._open_db()
                if self._clock.monotonic_s() - self._polled_at_s <= self._timeouts.max_poll_interval_s:
                    self._beat(db)
                else:
                    with db.write():
                        groups.leave(db, self._group, self.member)
            except StreampipeError:
                continue  # poll meets the same trouble, and tells
        if db is not None:
            db.close()

    def _beat(self, db: Database) -> None:
        groups.heartbeat(db, self.member, self.deadline_ms())
        self._beaten_at_s = self._clock.monotonic_s()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self.is_alive():
            self.join(timeout=4)
