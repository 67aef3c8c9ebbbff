"""What the loops share: tuned clients, an end on SIGTERM, and where a key goes."""

from __future__ import annotations

import signal
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.setup import CONSUMER, PARTITIONS, PRODUCER, Setup

CHUNK = 1_000
"""Records a consume() call: more do not fit the cache."""
HOUR_MS = 3_600_000
COMMIT_S = 1.0
"""Seconds between commits of the at-least-once loops."""
TRANSACTION_S = 0.1
"""Seconds that a transaction of the exactly-once loops stays open."""


class Partitions(dict[bytes, int]):
    """Partition by key, as librdkafka places it by default; hashed once per distinct key."""

    def __missing__(self, key: bytes) -> int:
        self[key] = partition = zlib.crc32(key) % PARTITIONS
        return partition


@contextmanager
def consuming(setup: Setup) -> Iterator[Any]:
    """A member of the group that leaves it in order when SIGTERM arrives."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    consumer = Consumer({"bootstrap.servers": setup.bootstrap, "group.id": setup.group, **CONSUMER})
    consumer.subscribe([setup.flights])
    try:
        yield consumer
    finally:
        consumer.close()


def idempotent_producer(setup: Setup) -> Any:
    """A producer for at-least-once."""
    return Producer({"bootstrap.servers": setup.bootstrap, **PRODUCER})


def transactional_producer(setup: Setup) -> Any:
    """A producer for exactly-once, its transactions ready."""
    settings = {**PRODUCER, "linger.ms": 5, "transactional.id": setup.group}
    producer = Producer({"bootstrap.servers": setup.bootstrap, **settings})
    producer.init_transactions(30)
    return producer


class Committer:
    """Commits consumed offsets once a second, after everything made of them is acknowledged."""

    def __init__(self, setup: Setup, consumer: Any, producer: Any) -> None:
        self._topic, self._consumer, self._producer = setup.flights, consumer, producer
        self.consumed: dict[int, int] = {}
        """Last offset handled, by partition, since the last commit."""
        self._last = time.monotonic()

    def poll(self) -> None:
        """Commit if it is time."""
        if self.consumed and time.monotonic() - self._last > COMMIT_S:
            if self._producer.flush(30):
                raise TimeoutError("records are not acknowledged after 30 seconds")
            self._consumer.commit(offsets=offsets(self._topic, self.consumed), asynchronous=True)
            self._last = time.monotonic()
            self.consumed.clear()


def offsets(topic: str, consumed: dict[int, int]) -> list[Any]:
    """What to commit: the offset after the last one consumed, of each partition."""
    return [TopicPartition(topic, partition, offset + 1) for partition, offset in consumed.items()]
