"""Which partitions went quiet, so that their windows may close by the wall clock (promise 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from streampipe.brokers.port import Admin
from streampipe.clock import Clock
from streampipe.records import TopicPartition
from streampipe.runtime.port import SubTopology

LOOK_EVERY_S = 1.0


def silence_of(part: SubTopology, silent_s: Mapping[TopicPartition, float]) -> dict[int, float]:
    """How long partition numbers of a sub-topology are silent: as long as the last one of its inputs that was heard.

    Its inputs share their stream time. And what others still read may come here, so their inputs count as well.
    """
    topics = {*part.inputs, *part.before}
    shortest: dict[int, float] = {}
    for tp, silence_s in silent_s.items():
        if tp.topic in topics:
            shortest[tp.partition] = min(silence_s, shortest.get(tp.partition, silence_s))
    return shortest


class IdlePartitions:
    """Partition numbers, by sub-topology, of which no owned input had a record for `after_s` seconds while caught up.

    Each sub-topology is idle for itself, however busy the others are that do not feed it; its own inputs are idle
    together, since they share their stream time. Silence alone is no proof: a broker that cannot be reached is silent
    too. So the end of the partition is asked for each time, and a broker that does not answer makes nothing idle.
    """

    def __init__(self, admin: Admin, clock: Clock, after_s: float, subtopologies: Sequence[SubTopology]) -> None:
        self._admin, self._clock, self._after_s = admin, clock, after_s
        self._subtopologies = subtopologies
        self._heard: dict[TopicPartition, float] = {}
        self._next_look = clock.monotonic_s() + LOOK_EVERY_S

    def heard(self, partition: TopicPartition) -> None:
        """A record came, or the partition did."""
        self._heard[partition] = self._clock.monotonic_s()

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are gone."""
        for partition in partitions:
            self._heard.pop(partition, None)

    def look(
        self, held: Collection[TopicPartition], position: Callable[[TopicPartition], int]
    ) -> dict[SubTopology, dict[int, float]]:
        """Numbers that are idle now, and for how many seconds; empty between looks. Those in `held` are never idle.

        Raises Unavailable.
        """
        now = self._clock.monotonic_s()
        if now < self._next_look or math.isinf(self._after_s):
            return {}
        self._next_look = now + LOOK_EVERY_S
        for partition in held:
            self.heard(partition)
        silent_s = {tp: now - at for tp, at in self._heard.items()}
        quiet = [tp for tp, silence_s in silent_s.items() if silence_s >= self._after_s]
        ends = self._admin.offsets(quiet, "latest") if quiet else {}
        # Silence of what is held, or behind, is no silence at all, however short a silence may be that counts.
        silent_s |= {tp: -math.inf for tp in quiet if tp in held or position(tp) < ends[tp]}
        return {part: idle for part in self._subtopologies if (idle := self._idle(part, silent_s))}

    def _idle(self, part: SubTopology, silent_s: Mapping[TopicPartition, float]) -> dict[int, float]:
        silences = silence_of(part, silent_s).items()
        return {number: silence_s for number, silence_s in silences if silence_s >= self._after_s}
