"""Inputs that meet are processed in the order of their event times, whichever the broker handed over first.

As in Kafka Streams (KIP-353, KIP-695): of what is there, the oldest is next, and nothing is processed while an input
that is behind may still have something older. Only an input with nothing left to read holds nobody up.

Going back and forth between topics record by record would cost the columns their speed. So all inputs go on to a
common point in time, a round, with which the task deals as if its records came in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from streampipe.brokers.port import Admin, Consumer
from streampipe.clock import Clock
from streampipe.operators.frame import Mask
from streampipe.records import IntArray, RecordBatch, TopicPartition, one_batch
from streampipe.runtime.partitions import Partitions
from streampipe.runtime.port import SubTopology

_BEFORE, _AFTER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
"""A time before that of any record, and one after."""
LOOK_AGAIN_S = 0.1
"""How long an input that was read to its end counts as such; then its end is looked up again."""


@dataclass(slots=True)
class _Held:
    """What is left of a batch: `rest` are rows, `moments` when it is the turn of each row of the batch."""

    batch: RecordBatch
    moments: IntArray
    rest: IntArray

    def take(self, which: Mask) -> RecordBatch:
        """Take these out of the rest."""
        rows, self.rest = self.rest[which], self.rest[~which]
        return self.batch.take(rows)


class TimeOrder:
    """Records of sub-topologies with several streams.

    `times` gives the event times of a batch, negative where there is none; `exhausted` says which partitions have
    nothing left to read.
    """

    def __init__(
        self,
        parts: Sequence[SubTopology],
        times: Callable[[RecordBatch], IntArray],
        exhausted: Callable[[Collection[TopicPartition]], Collection[TopicPartition]],
    ) -> None:
        self._groups = [part.streams for part in parts if len(part.streams) > 1]
        self._times, self._exhausted = times, exhausted
        self._new: list[RecordBatch] = []
        self._held: dict[str, list[_Held]] = {topic: [] for streams in self._groups for topic in streams}
        self._reached: dict[TopicPartition, int] = {}
        """The largest event time of what has come."""

    def orders(self, topic: str) -> bool:
        """Whether a topic meets another one."""
        return topic in self._held

    def add(self, batch: RecordBatch) -> None:
        """More of one of the topics."""
        self._new.append(batch)

    def __len__(self) -> int:
        """Records that wait."""
        return sum(map(len, self._new)) + sum(len(held.rest) for lot in self._held.values() for held in lot)

    def waiting(self) -> Iterator[tuple[str, IntArray, IntArray]]:
        """Topic, partitions and offsets of what waits, each partition's in order."""
        for topic, lot in self._held.items():
            for held in lot:
                yield topic, held.batch.partitions[held.rest], held.batch.offsets[held.rest]
        for batch in self._new:
            yield batch.topic, batch.partitions, batch.offsets

    def let_go(self, gone: Collection[TopicPartition]) -> None:
        """Forget the records of these partitions."""
        for topic in {tp.topic for tp in gone if self.orders(tp.topic)}:
            numbers = [tp.partition for tp in gone if tp.topic == topic]
            for held in self._held[topic]:
                held.rest = held.rest[~np.isin(held.batch.partitions[held.rest], numbers)]
            self._new = [
                b.take(np.flatnonzero(~np.isin(b.partitions, numbers))) if b.topic == topic else b for b in self._new
            ]
        for partition in gone:
            self._reached.pop(partition, None)

    def next(self, limit: int) -> list[RecordBatch]:
        """The next round, of about `limit` records at most: a batch of each topic; empty when all has to wait.

        Raises Unavailable.
        """
        while self._new:
            if len(self._new[0]):
                self._take_in(self._new[0], self._times(self._new[0]))
            del self._new[0]
        for streams in self._groups:
            if found := self._round(streams, limit):
                return found
        return []

    def _take_in(self, batch: RecordBatch, times: IntArray) -> None:
        """A record's turn is when the times before it in its partition have come: their running maximum."""
        moments = np.empty(len(batch), np.int64)
        for number in np.unique(batch.partitions).tolist():
            rows, partition = np.flatnonzero(batch.partitions == number), TopicPartition(batch.topic, number)
            running = np.maximum.accumulate(times[rows])
            moments[rows] = np.maximum(running, self._reached.get(partition, _BEFORE))
            self._reached[partition] = int(moments[rows[-1]])
        self._held[batch.topic].append(_Held(batch, moments, np.arange(len(batch))))

    def _round(self, streams: Sequence[str], limit: int) -> list[RecordBatch]:
        there = {topic: _numbers(self._held[topic]) for topic in streams}
        if not any(there.values()):
            return []
        until = self._until(there)
        lots = [held for topic in streams for held in self._held[topic]]
        due = [held.moments[held.rest] <= until[held.batch.partitions[held.rest]] for held in lots]
        moments = np.concatenate([held.moments[held.rest[mine]] for held, mine in zip(lots, due, strict=True)])
        if len(moments) > limit:
            last = np.partition(moments, limit - 1)[limit - 1]
            due = [mine & (held.moments[held.rest] <= last) for held, mine in zip(lots, due, strict=True)]
        taken = [held.take(mine) for held, mine in zip(lots, due, strict=True) if mine.any()]
        for topic in streams:
            self._held[topic] = [held for held in self._held[topic] if len(held.rest)]
        return [one_batch(list(parts)) for _, parts in groupby(taken, key=lambda batch: batch.topic)]

    def _until(self, there: dict[str, set[int]]) -> IntArray:
        """By partition number, up to which moment all of these topics are known."""
        numbers = set().union(*there.values())
        empty = [TopicPartition(topic, n) for topic, held in there.items() for n in sorted(numbers - held)]
        over = self._exhausted(empty) if empty else ()
        until = np.full(max(numbers) + 1, _AFTER, np.int64)
        for topic, held in there.items():
            for number in numbers:
                partition = TopicPartition(topic, number)
                if number in held:
                    until[number] = min(until[number], self._reached[partition])
                elif partition not in over:
                    until[number] = _BEFORE
        return until


def _numbers(lot: Sequence[_Held]) -> set[int]:
    """Partitions of which something is held."""
    return {int(number) for held in lot for number in np.unique(held.batch.partitions[held.rest])}


class Exhausted:
    """Which partitions of a member have nothing left to read: as of now, or up to where a bounded run goes."""

    def __init__(self, admin: Admin, clock: Clock, consumer: Consumer, mine: Partitions) -> None:
        self._admin, self._clock, self._consumer, self._mine = admin, clock, consumer, mine
        self._ends: dict[TopicPartition, tuple[int, float]] = defaultdict(lambda: (0, -LOOK_AGAIN_S))

    def __call__(self, asked: Collection[TopicPartition]) -> set[TopicPartition]:
        """Those of the asked ones, and those that are not this member's. Raises Unavailable."""
        over = {tp for tp in asked if tp not in self._mine.owned or self._mine.bounded(tp)}
        positions = {tp: self._consumer.position(tp) for tp in asked if tp not in over}
        now = self._clock.monotonic_s()
        there = [tp for tp, at in positions.items() if at >= self._ends[tp][0]]
        if old := [tp for tp in there if now >= self._ends[tp][1] + LOOK_AGAIN_S]:
            self._ends |= {tp: (end, now) for tp, end in self._admin.offsets(old, "latest").items()}
        return over | {tp for tp, at in positions.items() if at >= self._ends[tp][0]}
