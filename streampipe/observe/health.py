"""Is this worker alive, ready, started? Liveness never depends on the broker, on lag or on dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Literal

from streampipe.observe.observers import RebalanceKind
from streampipe.records import TopicPartition
from streampipe.runtime.observer import NullObserver
from streampipe.runtime.port import State

REBALANCE_GRACE_S = 60.0
"""A rebalance shorter than this does not make a worker unready."""
STUCK_POLL_S = 330.0
"""max.poll.interval.ms of five minutes and a margin: a member that did not poll for so long has left its group and,
since librdkafka keeps up the heartbeat by itself, only its own death brings it back."""
STUCK_RESTORE_S = 300.0
"""A restore that read nothing for so long will not end."""

Probe = Literal["livez", "readyz", "startupz"]
PROBES: tuple[Probe, ...] = ("livez", "readyz", "startupz")


class Health(NullObserver):
    """A `runtime.port.Observer` that knows only what the probes ask. Answers may come from another thread."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._now = monotonic_s
        self._lock = Lock()
        self._state: State = "starting"
        self._since = self._heartbeat = self._restored_at = self._now()
        self._assigned = False
        self._reachable = True

    def ok(self, probe: Probe) -> bool:
        """Whether the probe passes now."""
        with self._lock:
            if self._state == "failed" or self._is_stuck():
                return False
            if probe == "livez":
                return True
            if probe == "startupz":
                return self._assigned and self._state not in ("starting", "restoring")
            return self._is_ready()

    def _is_ready(self) -> bool:
        if self._state == "rebalancing":
            return self._assigned and self._reachable and self._now() - self._since <= REBALANCE_GRACE_S
        return self._state == "running" and self._reachable

    def _is_stuck(self) -> bool:
        if self._state == "restoring":
            return self._now() - self._restored_at > STUCK_RESTORE_S
        return self._state in ("running", "rebalancing") and self._now() - self._heartbeat > STUCK_POLL_S

    def state(self, state: State) -> None:
        """The worker is now in this state."""
        with self._lock:
            if state != self._state:
                self._state, self._since = state, self._now()
                self._heartbeat = self._restored_at = self._since
            if state == "running":
                self._assigned = True

    def polled(self, records: int, idle_s: float) -> None:  # noqa: ARG002  # the protocol's parameters
        """The heartbeat."""
        with self._lock:
            self._heartbeat = self._now()

    def rebalanced(self, kind: RebalanceKind, partitions: Sequence[TopicPartition], seconds: float) -> None:  # noqa: ARG002  # as above
        """An assignment, also an empty one, ends the start."""
        if kind == "assigned":
            with self._lock:
                self._assigned = True

    def restoring(self, store: str, restored: int, remaining: int, seconds: float) -> None:  # noqa: ARG002  # as above
        """Progress of a restore keeps it alive."""
        if restored or not remaining:
            with self._lock:
                self._restored_at = self._heartbeat = self._now()

    def broker_reachable(self, reachable: bool) -> None:
        """Whether broker and registry answered when last asked."""
        with self._lock:
            self._reachable = reachable
