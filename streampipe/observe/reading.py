"""Reading a stretch of a topic outside any group, for people who look at records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np

from streampipe.brokers.port import Broker
from streampipe.errors import Unavailable
from streampipe.records import RecordBatch, TopicPartition

SILENCE_S = 30.0
"""How long a broker may stay silent about records that it says are there."""


def read_between(
    broker: Broker, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], chunk: int = 1_000
) -> Iterator[RecordBatch]:
    """Committed records with start <= offset < end of each partition, in batches. Raises Unavailable on silence."""
    left = {p: start for p, start in starts.items() if start < ends[p]}
    if not left:
        return
    reader = broker.reader(left)
    try:
        heard = time.monotonic()
        while left:
            batches = reader.poll(chunk, 0.2)
            if batches:
                heard = time.monotonic()
            for batch in batches:
                limits = [ends[TopicPartition(batch.topic, p)] for p in batch.partitions.tolist()]
                inside = np.flatnonzero(batch.offsets < np.array(limits, np.int64))
                if len(inside):
                    yield batch if len(inside) == len(batch) else batch.take(inside)
            left = {p: at for p in left if (at := reader.position(p)) < ends[p]}
            if left and time.monotonic() - heard > SILENCE_S:
                raise Unavailable(f"{broker.name}: no records of {', '.join(map(str, left))} for {SILENCE_S:.0f} s")
    finally:
        reader.close()


def follow(broker: Broker, starts: Mapping[TopicPartition, int], chunk: int = 1_000) -> Iterator[RecordBatch]:
    """Committed records from these offsets on, as they come, without end."""
    reader = broker.reader(starts)
    try:
        while True:
            yield from reader.poll(chunk, 0.5)
    finally:
        reader.close()
