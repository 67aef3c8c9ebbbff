"""The partitions of one group member: whose they are, which of them have to wait, and how far each one is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from streampipe.brokers.port import Consumer
from streampipe.records import RecordBatch, TopicPartition
from streampipe.runtime.port import SubTopology

_NO_BOUND = np.iinfo(np.int64).max


class Partitions:
    """Arriving partitions were assigned but the task does not have them yet; owned ones it has."""

    def __init__(
        self, consumer: Consumer, subtopologies: Sequence[SubTopology], until: Mapping[TopicPartition, int]
    ) -> None:
        self._consumer, self._subtopologies, self._until = consumer, subtopologies, until
        self.owned: set[TopicPartition] = set()
        self.arriving: set[TopicPartition] = set()
        self.paused: set[TopicPartition] = set()
        self.waiting: set[TopicPartition] = set()
        """Those paused for a reason of their own, not because all have to wait for what was polled."""
        self.committed: dict[TopicPartition, int] = {}
        """Offsets of owned partitions as the group has them."""
        self._table_ends: dict[TopicPartition, int] = {}

    def arrive(self, partitions: Collection[TopicPartition]) -> None:
        """These were assigned: nothing of them is handed over for now."""
        self.arriving |= set(partitions)
        self._consumer.pause(partitions)
        self.paused |= set(partitions)

    def take_on(self, committed: Mapping[TopicPartition, int], table_ends: Mapping[TopicPartition, int]) -> None:
        """What arrived is owned now."""
        self.owned |= self.arriving
        self.arriving.clear()
        self.committed.update(committed)
        self._table_ends.update(table_ends)

    def go(self, partitions: Collection[TopicPartition]) -> None:
        """These are somebody else's."""
        gone = set(partitions)
        self.owned -= gone
        self.arriving -= gone
        self.paused -= gone
        self.waiting -= gone
        for partition in gone:
            self.committed.pop(partition, None)
            self._table_ends.pop(partition, None)

    def return_to_arriving(self, numbers: Collection[int]) -> list[TopicPartition]:
        """Owned partitions of these numbers must be taken on once more."""
        again = sorted(tp for tp in self.owned if tp.partition in numbers)
        self.owned.difference_update(again)
        self.arriving.update(again)
        return again

    def hold(self, *, everything: bool, restoring: Collection[int], ahead: Collection[TopicPartition]) -> None:
        """Pause and resume so that exactly the partitions that must wait are paused."""
        self._table_ends = {tp: end for tp, end in self._table_ends.items() if self._consumer.position(tp) < end}
        self.waiting = self._held(restoring)
        held = self.owned | self.arriving if everything else self.waiting | (self.owned & set(ahead))
        if pause := held - self.paused:
            self._consumer.pause(sorted(pause))
        if resume := self.paused - held:
            self._consumer.resume(sorted(resume))
        self.paused = held

    def _held(self, restoring: Collection[int]) -> set[TopicPartition]:
        held = self.arriving | {tp for tp in self.owned if tp.partition in restoring}
        for part in self._subtopologies:
            behind = {tp.partition for tp in self._table_ends if tp.topic in part.tables}
            held |= {tp for tp in self.owned if tp.topic in part.streams and tp.partition in behind}
        return held | {tp for tp in self.owned if self.bounded(tp)}

    def bounded(self, partition: TopicPartition) -> bool:
        """Whether a partition has come to where it is to be read to."""
        return partition in self._until and self._consumer.position(partition) >= self._until[partition]

    def admit(self, batch: RecordBatch) -> RecordBatch:
        """Only records that may be processed now; others of this member are to be handed over again."""
        if not self._until and not self.paused:
            return batch
        refused = np.zeros(len(batch), np.bool_)
        for number in np.unique(batch.partitions).tolist():
            partition = TopicPartition(batch.topic, number)
            rows = batch.partitions == number
            if partition in self.owned and partition not in self.paused:
                rows &= batch.offsets >= self._until.get(partition, _NO_BOUND)
            if rows.any():
                if partition in self.owned or partition in self.arriving:
                    self._consumer.seek(partition, int(batch.offsets[rows][0]))
                refused |= rows
        return batch.take(np.flatnonzero(~refused)) if refused.any() else batch

    def positions(self, pending: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """What to commit: the first record still pending, else the position, past control records too."""
        return {tp: max(self._next(tp, pending), self.committed.get(tp, 0)) for tp in sorted(self.owned)}

    def _next(self, partition: TopicPartition, pending: Mapping[TopicPartition, int]) -> int:
        if partition in pending:
            return pending[partition]
        position = self._consumer.position(partition)
        return min(position, self._until.get(partition, position))

    def start_over(self) -> None:
        """Whatever the member has now is arriving."""
        self.arriving = set(self._consumer.assignment())
        self.owned.clear()
        self.paused &= self.arriving
        self.committed.clear()
        self._table_ends.clear()


def without(batch: RecordBatch, gone: Collection[TopicPartition]) -> RecordBatch:
    """The batch less the records of some partitions."""
    numbers = [tp.partition for tp in gone if tp.topic == batch.topic]
    return batch.take(np.flatnonzero(~np.isin(batch.partitions, numbers))) if numbers else batch
