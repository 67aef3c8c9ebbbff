"""Reading partitions: positions, fetched chunks, and columns made of both."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np

from streampipe.brokers.local import log, transactions
from streampipe.brokers.local.chunks import Chunk, unpack_headers
from streampipe.brokers.local.database import Database
from streampipe.brokers.port import Isolation, Offsets
from streampipe.clock import Clock
from streampipe.errors import UnknownTopic
from streampipe.records import Headers, RecordBatch, TopicPartition, no_headers

MIN_PAUSE_S = 0.001
MAX_PAUSE_S = 0.020


class Run(NamedTuple):
    """Rows `start` to `stop` of a chunk."""

    partition: int
    chunk: Chunk
    start: int
    stop: int


class Fetcher:
    """Positions of some partitions, and the records that come next."""

    def __init__(self, db: Database, clock: Clock, isolation: Isolation) -> None:
        self._db = db
        self._clock = clock
        self._isolation = isolation
        self._ids: dict[TopicPartition, int] = {}
        self._buffers: dict[TopicPartition, deque[Chunk]] = {}
        self.positions: dict[TopicPartition, int] = {}

    def add(self, offsets: Offsets) -> None:
        """Read these as well, from these offsets. Raises UnknownTopic."""
        self._ids |= log.partition_ids(self._db, offsets)
        for tp, offset in offsets.items():
            self.seek(tp, offset)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue a partition at `offset`."""
        self.positions[partition] = offset
        self._buffers[partition] = deque()

    def remove(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading these."""
        for tp in partitions:
            for column in (self._ids, self._buffers, self.positions):
                column.pop(tp, None)

    def fetch(self, max_records: int, paused: Collection[TopicPartition] = ()) -> list[RecordBatch]:
        """Up to `max_records` records that are there, a fair share of each partition, a batch a topic."""
        ends = self._ends()
        active = [tp for tp in self.positions if tp not in paused and self.positions[tp] < ends[tp]]
        runs: dict[str, list[Run]] = {}
        left = max_records
        while active and left > 0:
            share = max(1, left // len(active))
            more = []
            for tp in active:
                got = self._take(tp, min(share, left), ends[tp], runs.setdefault(tp.topic, []))
                left -= got
                if got == share:
                    more.append(tp)
            active = more
        self._rotate()
        return [_batch(topic, taken) for topic, taken in runs.items() if taken]

    def _rotate(self) -> None:
        """Let the next fetch begin with another partition, in case `max_records` is less than there are."""
        for tp in list(self.positions)[:1]:
            self.positions[tp] = self.positions.pop(tp)

    def _ends(self) -> dict[TopicPartition, int]:
        ends = log.ends(self._db, self._ids.values())
        if any(end.stable < end.high for end in ends.values()) and transactions.expire(self._db, self._clock.now_ms()):
            ends = log.ends(self._db, self._ids.values())
        for tp, partition_id in self._ids.items():
            if partition_id not in ends:
                raise UnknownTopic(tp.topic)
        return {tp: ends[partition_id].end(self._isolation) for tp, partition_id in self._ids.items()}

    def _take(self, tp: TopicPartition, rows: int, end: int, runs: list[Run]) -> int:
        """Add up to `rows` records of a partition to `runs` and move its position; how many there were."""
        buffer = self._buffers[tp]
        position = self.positions[tp]
        taken = 0
        while taken < rows:
            if not buffer:
                buffer.extend(log.read(self._db, self._ids[tp], position, end, rows - taken))
            if not buffer:
                position = max(position, end)  # what is left are gaps of aborted transactions
                break
            chunk = buffer[0]
            start = max(0, position - chunk.base)
            stop = min(len(chunk), start + rows - taken)
            runs.append(Run(tp.partition, chunk, start, stop))
            taken += stop - start
            position = chunk.base + stop
            if stop == len(chunk):
                buffer.popleft()
        self.positions[tp] = position
        return taken


def _batch(topic: str, runs: Sequence[Run]) -> RecordBatch:
    return RecordBatch(
        topic,
        np.repeat(np.array([run.partition for run in runs], np.int64), [run.stop - run.start for run in runs]),
        np.concatenate([np.arange(c.base + start, c.base + stop, dtype=np.int64) for _, c, start, stop in runs]),
        np.concatenate([c.timestamps[start:stop] for _, c, start, stop in runs]),
        list(chain.from_iterable(c.keys[start:stop] for _, c, start, stop in runs)),
        list(chain.from_iterable(c.values[start:stop] for _, c, start, stop in runs)),
        _headers(runs),
    )


def _headers(runs: Sequence[Run]) -> Callable[[int], Headers]:
    if all(run.chunk.headers is None for run in runs):
        return no_headers
    first_rows = [0, *accumulate(run.stop - run.start for run in runs)]

    def headers(row: int) -> Headers:
        at = bisect_right(first_rows, row) - 1
        _, chunk, start, _ = runs[at]
        return () if chunk.headers is None else unpack_headers(chunk.headers[start + row - first_rows[at]])

    return headers


def wait(clock: Clock, timeout_s: float, attempt: Callable[[], list[RecordBatch]]) -> list[RecordBatch]:
    """Call `attempt` until it gives something or the time is up, at first every 1 ms, later every 20 ms."""
    deadline = clock.monotonic_s() + timeout_s
    pause_s = MIN_PAUSE_S
    while True:
        found = attempt()
        left_s = deadline - clock.monotonic_s()
        if found or left_s <= 0:
            return found
        clock.sleep_s(min(pause_s, left_s))
        pause_s = min(2 * pause_s, MAX_PAUSE_S)


class LocalReader:
    """`Reader` on the embedded log. poll raises UnknownTopic when one of its topics was deleted."""

    def __init__(self, db: Database, clock: Clock, offsets: Offsets, isolation: Isolation) -> None:
        self._db = db
        self._clock = clock
        self._fetcher = Fetcher(db, clock, isolation)
        try:
            self._fetcher.add(offsets)
        except BaseException:
            db.close()
            raise

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Up to `max_records` records, waiting up to `timeout_s` for the first."""
        return wait(self._clock, timeout_s, lambda: self._fetcher.fetch(max_records))

    def position(self, partition: TopicPartition) -> int:
        """Offset of the next record to be handed over."""
        return self._fetcher.positions[partition]

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
