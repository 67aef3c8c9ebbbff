"""Global tables: topics that every worker reads whole, outside the group, and then follows."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection

from streampipe.brokers.port import Admin, Broker, Reader
from streampipe.clock import Clock
from streampipe.records import RecordBatch, TopicPartition
from streampipe.runtime.port import Task

log = logging.getLogger(__name__)

STEP_RECORDS = 20_000
FOLLOW_EVERY_S = 0.1


class GlobalTables:
    """Feeds a task its global tables: up to the end as of the start before any record, from then on as they grow."""

    def __init__(self, topics: Collection[str], broker: Broker, admin: Admin, clock: Clock) -> None:
        self._topics, self._broker, self._admin, self._clock = tuple(topics), broker, admin, clock
        self._reader: Reader | None = None
        self._behind: dict[TopicPartition, int] = {}
        self._queue: deque[RecordBatch] = deque()
        self._next_look = clock.monotonic_s()
        self.loaded = not self._topics

    def step(self, task: Task) -> None:
        """Read and apply what there is. Raises Unavailable (call again)."""
        if not self._topics or (self.loaded and self._clock.monotonic_s() < self._next_look):
            return
        reader = self._open()
        if not self._queue:
            self._queue.extend(reader.poll(STEP_RECORDS, 0.0 if self.loaded else 0.05))
        while self._queue:
            for problem in task.load(self._queue[0]):
                log.warning("a record of a global table was left out: %s", problem)
            self._queue.popleft()
        self._behind = {tp: end for tp, end in self._behind.items() if reader.position(tp) < end}
        self.loaded = not self._behind
        self._next_look = self._clock.monotonic_s() + FOLLOW_EVERY_S

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> Reader:
        if self._reader is None:
            counts = {topic: self._admin.describe_topic(topic).partitions for topic in self._topics}
            partitions = [TopicPartition(topic, n) for topic, count in counts.items() for n in range(count)]
            ends = self._admin.offsets(partitions, "latest", "read_uncommitted")
            firsts = self._admin.offsets(partitions, "earliest")
            self._behind = {tp: end for tp, end in ends.items() if end > firsts[tp]}
            self._reader = self._broker.reader(firsts)
        return self._reader
