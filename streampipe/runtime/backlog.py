"""What was polled and waits to be processed: in slices of about a turn each, and until what it depends on is there."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np

from streampipe.clock import Clock
from streampipe.errors import Unavailable
from streampipe.records import RecordBatch, TopicPartition
from streampipe.runtime.partitions import without
from streampipe.runtime.port import Observer
from streampipe.runtime.time_order import TimeOrder

log = logging.getLogger(__name__)

MAX_RETRY_S = 5.0
TURN_S = 1.0
"""How long processing may go on before the group is polled, a commit made or a stop noticed: slow handlers get
their records in slices of about that."""
FIRST_SLICE = 500
AHEAD = 4
"""How many times `batch_size` records may wait for other inputs before no more of theirs are polled: stopping and
going on costs fetching anew."""


class Backlog:
    """Batches in the order in which they came, but for those that meet others: see `TimeOrder`.

    `batch_size`: records that are processed together, at most.
    """

    def __init__(self, clock: Clock, observer: Observer, batch_size: int, order: TimeOrder) -> None:
        self._clock, self._observer, self._batch_size, self._order = clock, observer, batch_size, order
        self.batches: deque[RecordBatch] = deque()
        self._round: list[RecordBatch] = []
        """What is next, and is tried again as it is when something was unavailable."""
        self._cut_short = False
        self._slice = FIRST_SLICE
        self.retry_at = 0.0
        """When to go on, in seconds of the monotonic clock, while something is unavailable; else 0."""
        self._retry_s = 0.0

    def __bool__(self) -> bool:
        """Whether there may be something to process now; what waits for other inputs is none of it."""
        return bool(self._round or self.batches or self._cut_short)

    def add(self, batches: Iterable[RecordBatch]) -> None:
        """More to process."""
        for batch in batches:
            if not len(batch):
                continue
            if self._order.orders(batch.topic):
                self._order.add(batch)
                self._cut_short = True
            else:
                self.batches.append(batch)

    @property
    def waiting(self) -> bool:
        """Whether anything is not processed yet."""
        return bool(self) or len(self._order) > 0

    def firsts(self) -> dict[TopicPartition, int]:
        """The first offset of each partition that is not processed yet."""
        found: dict[TopicPartition, int] = {}
        own = ((b.topic, b.partitions, b.offsets) for b in (*self._round, *self.batches))
        for topic, partitions, offsets in (*own, *self._order.waiting()):
            numbers, at = np.unique(partitions, return_index=True)
            for number, offset in zip(numbers.tolist(), offsets[at].tolist(), strict=True):
                found.setdefault(TopicPartition(topic, number), offset)
        return found

    def too_far_ahead(self) -> set[TopicPartition]:
        """Partitions of which enough waits for other inputs: no more should be polled until those have come."""
        if len(self._order) <= AHEAD * self._batch_size:
            return set()
        return {TopicPartition(t, int(n)) for t, numbers, _ in self._order.waiting() for n in np.unique(numbers)}

    def let_go(self, gone: Collection[TopicPartition]) -> None:
        """Forget the records of these partitions."""
        self._round = [b for b in (without(b, gone) for b in self._round) if len(b)]
        self.batches = deque(b for b in (without(b, gone) for b in self.batches) if len(b))
        self._order.let_go(gone)

    def turn(self, process: Callable[[Sequence[RecordBatch]], None]) -> Iterator[tuple[RecordBatch, float]]:
        """Process for about a turn: batches that are done, and how many seconds each took.

        Ends early, to go on at `retry_at`, when something is unavailable.
        """
        if self.retry_at and self.waiting and self._clock.monotonic_s() < self.retry_at:
            return
        turn_ends = self._clock.monotonic_s() + TURN_S
        while self._clock.monotonic_s() < turn_ends:
            started = self._clock.monotonic_s()
            try:
                self._round = self._round or self._next()
                if self._round:
                    process(self._round)
            except Unavailable as error:
                self._wait_for(error)
                return
            done, self._round = self._round, []
            if not done:
                self._cut_short = False
                break
            seconds, records = self._clock.monotonic_s() - started, sum(map(len, done))
            self._adapt(records, seconds)
            yield from ((batch, seconds * len(batch) / records) for batch in done)
        if self.retry_at:  # or what had to wait went to another member
            self.retry_at = self._retry_s = 0.0
            self._observer.broker_reachable(True)

    def _next(self) -> list[RecordBatch]:
        if not self.batches:
            return self._order.next(self._slice) if len(self._order) else []
        batch = self.batches.popleft()
        if len(batch) > self._slice:
            self.batches.appendleft(batch.slice(self._slice, len(batch)))
            batch = batch.slice(0, self._slice)
        return [batch]

    def _adapt(self, records: int, seconds: float) -> None:
        if seconds > TURN_S:
            self._slice = max(1, int(records * TURN_S / seconds))
        elif seconds < TURN_S / 4:
            self._slice = min(self._batch_size, self._slice * 2)

    def _wait_for(self, error: Unavailable) -> None:
        self._retry_s = min(MAX_RETRY_S, self._retry_s * 2 or 0.1)
        self.retry_at = self._clock.monotonic_s() + self._retry_s
        self._observer.broker_reachable(False)
        log.warning("processing waits, next try in %.1f s: %s", self._retry_s, error)


class PollSize:
    """How many records a poll may bring: fewer while some are suspected of making their transaction fail."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = self.limit = batch_size
        self._suspects = 0

    @property
    def narrowed(self) -> bool:
        """Whether some of the suspects are not committed yet."""
        return self._suspects > 0

    def narrow(self, failed: int) -> bool:
        """Halve it until the records that just failed, so many, are committed; False: it was one record."""
        self._suspects = max(failed, self._suspects, 1)
        self.limit = max(1, min(self.limit, failed) // 2)
        return failed > 1

    def committed(self, records: int) -> None:
        """So many more are committed."""
        self._suspects -= records
        if self._suspects <= 0:
            self.limit = self._batch_size
