"""Records as columns: what a consumer hands over, what a producer takes, and how keys find their partition.

Nothing here knows a broker. `n` below is the number of records of a batch; every column has that length.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Headers = Sequence[tuple[str, bytes | None]]

NO_TIMESTAMP = -1
"""Timestamp of a record that has none (Kafka's own marker)."""


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


def no_headers(_row: int) -> Headers:
    """The headers of records that have none."""
    return ()


@dataclass(slots=True)
class RecordBatch:
    """Consumed records of one topic, in the order in which the broker handed them over.

    `partitions`, `offsets` and `timestamps` (milliseconds since the epoch, -1 for none) are int64 columns.
    A value of None is a tombstone. `headers(row)` reads one record's headers; it is a call since most records
    are never asked. A header whose name is not UTF-8 makes it raise ValueError, once and for all, for that row.
    """

    topic: str
    partitions: IntArray
    offsets: IntArray
    timestamps: IntArray
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: Callable[[int], Headers] = no_headers

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: IntArray) -> RecordBatch:
        """The records at `rows`, in that order."""
        at = rows.tolist()
        headers = self.headers
        return RecordBatch(
            self.topic,
            self.partitions[rows],
            self.offsets[rows],
            self.timestamps[rows],
            [self.keys[i] for i in at],
            [self.values[i] for i in at],
            lambda row: headers(at[row]),
        )

    def slice(self, start: int, stop: int) -> RecordBatch:
        """The records from `start` up to `stop`."""
        headers, some = self.headers, slice(start, stop)
        return RecordBatch(
            self.topic,
            self.partitions[some],
            self.offsets[some],
            self.timestamps[some],
            self.keys[some],
            self.values[some],
            lambda row: headers(start + row),
        )


class Record(NamedTuple):
    """One record, for tests and for people; the hot path never builds one."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def batch_of(records: Iterable[Record]) -> RecordBatch:
    """Build one batch out of records of one topic; raises ValueError for none or for several topics."""
    rows = list(records)
    topics = {r.topic for r in rows}
    if len(topics) != 1:
        raise ValueError(f"a batch holds records of exactly one topic, not of {sorted(topics)}")
    return RecordBatch(
        rows[0].topic,
        np.array([r.partition for r in rows], np.int64),
        np.array([r.offset for r in rows], np.int64),
        np.array([r.timestamp for r in rows], np.int64),
        [r.key for r in rows],
        [r.value for r in rows],
        lambda row: rows[row].headers,
    )


def one_batch(parts: Sequence[RecordBatch]) -> RecordBatch:
    """Batches of one topic, one after the other, as one."""
    if len(parts) == 1:
        return parts[0]
    sizes = np.cumsum([0, *map(len, parts)])
    some = any(part.headers is not no_headers for part in parts)

    def headers(row: int) -> Headers:
        part = int(np.searchsorted(sizes, row, side="right")) - 1
        return parts[part].headers(row - int(sizes[part]))

    return RecordBatch(
        parts[0].topic,
        np.concatenate([part.partitions for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        [key for part in parts for key in part.keys],
        [value for part in parts for value in part.values],
        headers if some else no_headers,
    )


def records_of(batch: RecordBatch, unreadable: Callable[[int], Headers] | None = None) -> list[Record]:
    """The batch as single records, headers read; `unreadable(row)` stands in for those that cannot be.

    Without it, raises ValueError for them.
    """
    columns = zip(
        batch.partitions.tolist(), batch.offsets.tolist(), batch.timestamps.tolist(), batch.keys, batch.values,
        strict=True,
    )  # fmt: skip

    def headers(row: int) -> Headers:
        try:
            return batch.headers(row)
        except ValueError:
            if unreadable is None:
                raise
            return unreadable(row)

    return [Record(batch.topic, *row, headers(i)) for i, row in enumerate(columns)]


@dataclass(slots=True)
class ProduceBatch:
    """Records to produce to one topic.

    `timestamps` in milliseconds; None lets the broker client stamp them, as does a single -1.
    `partitions` None places each record by `partition_of` its key, and a record without key anywhere.
    """

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps: Sequence[int] | None = None
    partitions: Sequence[int] | None = None
    headers: Sequence[Headers] | None = None

    def __len__(self) -> int:
        return len(self.values)


def partition_of(key: bytes, partitions: int) -> int:
    """Partition of a key among `partitions`: librdkafka's `consistent` partitioner (CRC-32 modulo count)."""
    return zlib.crc32(key) % partitions


def partitions_of(keys: Sequence[bytes | None], partitions: int, keyless: Iterator[int]) -> list[int]:
    """`partition_of` each key, written out for speed; a record without key goes to the next of `keyless`."""
    crc32 = zlib.crc32  # computed anew each time: a memory of keys seen takes longer than this
    return [next(keyless) if key is None else crc32(key) % partitions for key in keys]
