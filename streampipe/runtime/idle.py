"""Which partitions went quiet, so that their windows may close by the wall clock (promise 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from streampipe.brokers.port import Admin
from streampipe.clock import Clock
from streampipe.records import TopicPartition

LOOK_EVERY_S = 1.0


class IdlePartitions:
    """Partition numbers of which no owned topic had a record for `after_s` seconds while caught up.

    Silence alone is no proof: a broker that cannot be reached is silent too. So the end of the partition is asked
    for each time, and a broker that does not answer makes nothing idle.
    """

    def __init__(self, admin: Admin, clock: Clock, after_s: float) -> None:
        self._admin, self._clock, self._after_s = admin, clock, after_s
        self._heard: dict[TopicPartition, float] = {}
        self._next_look = clock.monotonic_s() + LOOK_EVERY_S

    def heard(self, partition: TopicPartition) -> None:
        """A record came, or the partition did."""
        self._heard[partition] = self._clock.monotonic_s()

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are gone."""
        for partition in partitions:
            self._heard.pop(partition, None)

    def look(self, held: Collection[TopicPartition], position: Callable[[TopicPartition], int]) -> dict[int, float]:
        """Numbers that are idle now, and for how many seconds; empty between looks. Those in `held` are never idle.

        Raises Unavailable.
        """
        now = self._clock.monotonic_s()
        if now < self._next_look or math.isinf(self._after_s):
            return {}
        self._next_look = now + LOOK_EVERY_S
        for partition in held:
            self.heard(partition)
        last: dict[int, float] = {}
        for tp, at in self._heard.items():
            last[tp.partition] = max(at, last.get(tp.partition, at))
        silent_s = {number: now - at for number, at in last.items() if now - at >= self._after_s}
        quiet = [tp for tp in self._heard if tp.partition in silent_s]
        ends = self._admin.offsets(quiet, "latest") if quiet else {}
        behind = {tp.partition for tp in quiet if position(tp) < ends[tp]}
        return {number: silence_s for number, silence_s in silent_s.items() if number not in behind}
