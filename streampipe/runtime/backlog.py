"""What was polled and waits to be processed: in slices of about a turn each, and until what it depends on is there."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator

from streampipe.clock import Clock
from streampipe.errors import Unavailable
from streampipe.records import RecordBatch, TopicPartition
from streampipe.runtime.partitions import without
from streampipe.runtime.port import Observer

log = logging.getLogger(__name__)

MAX_RETRY_S = 5.0
TURN_S = 1.0
"""How long processing may go on before the group is polled, a commit made or a stop noticed: slow handlers get
their records in slices of about that."""
FIRST_SLICE = 500


class Backlog:
    """Batches in the order in which they came. `batch_size`: records of a slice, at most."""

    def __init__(self, clock: Clock, observer: Observer, batch_size: int) -> None:
        self._clock, self._observer, self._batch_size = clock, observer, batch_size
        self.batches: deque[RecordBatch] = deque()
        self._slice = FIRST_SLICE
        self.retry_at = 0.0
        """When to go on, in seconds of the monotonic clock, while something is unavailable; else 0."""
        self._retry_s = 0.0

    def __bool__(self) -> bool:
        return bool(self.batches)

    def add(self, batches: Iterable[RecordBatch]) -> None:
        """More to process."""
        self.batches.extend(batch for batch in batches if len(batch))

    def let_go(self, gone: Collection[TopicPartition]) -> None:
        """Forget the records of these partitions."""
        self.batches = deque(b for b in (without(b, gone) for b in self.batches) if len(b))

    def turn(self, process: Callable[[RecordBatch], None]) -> Iterator[tuple[RecordBatch, float]]:
        """Process for about a turn: slices that are done, and how many seconds each took.

        Ends early, to go on at `retry_at`, when something is unavailable.
        """
        if self.batches and self._clock.monotonic_s() < self.retry_at:
            return
        turn_ends = self._clock.monotonic_s() + TURN_S
        while self.batches and self._clock.monotonic_s() < turn_ends:
            batch = self._next_slice()
            started = self._clock.monotonic_s()
            try:
                process(batch)
            except Unavailable as error:
                self._wait_for(error)
                return
            self.batches.popleft()
            seconds = self._clock.monotonic_s() - started
            self._adapt(len(batch), seconds)
            yield batch, seconds
        if self.retry_at:  # or what had to wait went to another member
            self.retry_at = self._retry_s = 0.0
            self._observer.broker_reachable(True)

    def _next_slice(self) -> RecordBatch:
        batch = self.batches[0]
        if len(batch) > self._slice:
            self.batches.popleft()
            self.batches.extendleft([batch.slice(self._slice, len(batch)), batch.slice(0, self._slice)])
        return self.batches[0]

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
