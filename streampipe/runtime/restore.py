"""Reading state back before its partitions are processed, in bounded steps between polls of the group."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from streampipe.brokers.port import Admin, Broker, Reader
from streampipe.clock import Clock
from streampipe.errors import StateCorrupted
from streampipe.records import RecordBatch, TopicPartition
from streampipe.runtime.port import Observer, Restore, Task
from streampipe.runtime.restore_progress import RestoreProgress

log = logging.getLogger(__name__)

STEP_RECORDS = 20_000
STEP_WAIT_S = 0.05


def by_partition(batch: RecordBatch) -> Iterable[tuple[TopicPartition, RecordBatch]]:
    """The batch cut by partition, order kept within each."""
    numbers = np.unique(batch.partitions)
    if len(numbers) == 1:
        yield TopicPartition(batch.topic, int(numbers[0])), batch
        return
    for number in numbers.tolist():
        yield TopicPartition(batch.topic, number), batch.take(np.flatnonzero(batch.partitions == number))


class Restorer:
    """Restores under way on one worker.

    The bound of a changelog is its high watermark as of before reading, captured with read_uncommitted, and
    reading is read_committed: a bound at the last stable offset would miss records committed above a
    transaction that a crashed writer left open (KAFKA-10167). Done is when the reader's position, which moves
    past control records too, reaches the bound.
    """

    def __init__(self, broker: Broker, admin: Admin, observer: Observer, clock: Clock, patience_s: float) -> None:
        self._broker, self._admin, self._observer, self._clock = broker, admin, observer, clock
        self._patience_s = patience_s
        self._active: dict[TopicPartition, Restore] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._bounds: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._queue: deque[tuple[TopicPartition, RecordBatch]] = deque()
        self._reader: Reader | None = None
        self._progress_at = clock.monotonic_s()
        self._progress = RestoreProgress(clock)

    @property
    def partitions(self) -> set[int]:
        """Numbers of the partitions that must wait."""
        return {restore.partition for restore in self._active.values()}

    def add(self, restores: Collection[Restore], committed: Mapping[TopicPartition, int]) -> None:
        """Take restores on; `committed` are the group's offsets of the partitions they came with."""
        for restore in restores:
            self._active[restore.source] = restore
        self._committed.update(committed)
        self._reopen()

    def drop(self, partitions: Collection[int]) -> None:
        """Forget the restores of these partition numbers."""
        for source in [s for s, restore in self._active.items() if restore.partition in partitions]:
            self._forget(source)
        self._reopen()

    def step(self, task: Task) -> None:
        """Read and apply some more. Raises Unavailable (call again), and StateCorrupted: also when nothing moves."""
        if not self._active:
            return
        self._plan(task)
        started = self._clock.monotonic_s()
        restored: dict[TopicPartition, int] = {}
        if not self._queue and self._reader is not None:
            for batch in self._reader.poll(STEP_RECORDS, STEP_WAIT_S):
                self._queue.extend((tp, rows) for tp, rows in by_partition(batch) if tp in self._active)
        while self._queue:
            source, rows = self._queue[0]
            task.restore(self._active[source], self._below_bound(source, rows))
            self._queue.popleft()
            restored[source] = restored.get(source, 0) + len(rows)
        self._advance(task, restored, self._clock.monotonic_s() - started)

    def close(self) -> None:
        """Forget everything."""
        for source in list(self._active):
            self._forget(source)
        self._reopen()

    def _plan(self, task: Task) -> None:
        if self._reader is not None:
            return
        new = [source for source in self._active if source not in self._bounds]
        ends = [source for source in new if self._active[source].upto == "end"]
        bounds = self._admin.offsets(ends, "latest", "read_uncommitted") if ends else {}
        firsts = self._admin.offsets(new, "earliest") if new else {}
        for source in new:
            bound = bounds[source] if source in bounds else self._committed.get(source, 0)
            self._positions[source] = self._start(task, self._active[source], firsts[source], bound)
            self._bounds[source] = bound
        self._finish(task)
        if self._active:
            self._reader = self._broker.reader({source: self._positions[source] for source in self._active})
        self._progress_at = self._clock.monotonic_s()

    def _start(self, task: Task, restore: Restore, first: int, bound: int) -> int:
        """Where to begin: where the state ends that was kept, if the topic is still the one that it came from."""
        if restore.mark is None:
            return first
        topic_id = self._admin.describe_topic(restore.source.topic).id
        if restore.mark.usable(topic_id, first, bound, self._clock.now_ms()):
            return restore.mark.offset
        log.info(
            "%s of partition %d is restored from the beginning: what was kept is too old, or of another changelog",
            restore.store, restore.partition,
        )  # fmt: skip
        task.forget_kept(restore)
        return first

    def _below_bound(self, source: TopicPartition, rows: RecordBatch) -> RecordBatch:
        bound = self._bounds[source]
        below = int(np.searchsorted(rows.offsets, bound))
        return rows if below == len(rows) else rows.slice(0, below)

    def _advance(self, task: Task, restored: Mapping[TopicPartition, int], seconds: float) -> None:
        if self._reader is None:
            return
        moved = False
        for source in self._active:
            position = self._reader.position(source)
            moved |= position > self._positions[source]
            self._positions[source] = max(position, self._positions[source])
        if restored:
            self._tell(restored, seconds)
        now = self._clock.monotonic_s()
        if moved:
            self._progress_at = now
        elif now - self._progress_at > self._patience_s:
            raise StateCorrupted(self._stalled())
        self._finish(task)

    def _tell(self, restored: Mapping[TopicPartition, int], seconds: float) -> None:
        """Progress by store: records of this step, and those left in all its partitions."""
        done, left = Counter[str](), Counter[str]()
        for source, restore in self._active.items():
            done[restore.store] += restored.get(source, 0)
            left[restore.store] += max(0, self._bounds[source] - self._positions[source])
        for store, records in done.items():
            if records:
                self._observer.restoring(store, records, left[store], seconds * records / done.total())
        self._progress.moved(done.total(), left)

    def _finish(self, task: Task) -> None:
        done = [source for source in self._active if self._positions[source] >= self._bounds[source]]
        stores = {self._active[source].store for source in done}
        for source in done:
            task.restored(self._active[source])
            self._forget(source)
        for store in stores - {restore.store for restore in self._active.values()}:
            self._observer.restoring(store, 0, 0, 0.0)
        if not self._active:
            self._reopen()

    def _stalled(self) -> str:
        where = ", ".join(f"{s} at {self._positions[s]} of {self._bounds[s]}" for s in self._active)
        return (
            f"state cannot be restored: nothing read for {self._patience_s:.0f} s ({where}); "
            f"look for a transaction that never ends, or for a topic that was cut off"
        )

    def _forget(self, source: TopicPartition) -> None:
        self._active.pop(source, None)
        self._bounds.pop(source, None)
        self._positions.pop(source, None)

    def _reopen(self) -> None:
        self._queue.clear()  # read again from the last position; applying an update twice changes nothing
        if self._reader is not None:
            self._reader.close()
            self._reader = None
