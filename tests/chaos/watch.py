"""How long partitions of the input stood still though there was something to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from streampipe.brokers.port import Broker
from streampipe.errors import Unavailable
from streampipe.records import TopicPartition

LOOK_S = 0.25


class Stall(NamedTuple):
    """From the last commit of a partition, or the first record without one, to the next commit."""

    partition: TopicPartition
    since_s: float
    until_s: float

    @property
    def length_s(self) -> float:
        return self.until_s - self.since_s

    def covers(self, moment_s: float) -> bool:
        """Whether it was so at this moment."""
        return self.since_s <= moment_s < self.until_s


class Watch(threading.Thread):
    """Looks at what a group has committed of its input, some times a second. Times are of the monotonic clock."""

    def __init__(self, broker: Broker, group: str, partitions: Collection[TopicPartition]) -> None:
        super().__init__(name="watch", daemon=True)
        self._broker, self._group, self._partitions = broker, group, list(partitions)
        self._last = {tp: (0, time.monotonic()) for tp in self._partitions}
        self._ending = threading.Event()
        self.stalls: list[Stall] = []

    def run(self) -> None:
        """Until `stop`."""
        admin = self._broker.admin()
        try:
            while not self._ending.wait(LOOK_S):
                try:
                    committed = admin.committed(self._group)
                    self.look(time.monotonic(), committed, admin.offsets(self._partitions, "latest"))
                except Unavailable:
                    continue  # a Kafka that is being restarted; what stands still meanwhile is seen afterwards
        finally:
            admin.close()

    def look(self, now_s: float, committed: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Committed offsets, and the ends a moment later."""
        for tp, end in ends.items():
            at, (before, since_s) = committed.get(tp, 0), self._last[tp]
            if at > before:
                self.stalls.append(Stall(tp, since_s, now_s))
            if at > before or at >= end:
                self._last[tp] = (at, now_s)

    def stop(self) -> None:
        """End soon."""
        self._ending.set()
        self.join(60)


def gaps_s(stalls: Iterable[Stall], moments_s: Collection[float]) -> list[float]:
    """How long partitions that stood still at one of the moments did so after it; after the last one, if several."""
    within = ((stall, list(filter(stall.covers, moments_s))) for stall in stalls)
    return [stall.until_s - max(inside) for stall, inside in within if inside]
