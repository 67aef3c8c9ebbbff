"""The broker and registry under the benchmark: topics made, filled, watched and removed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import confluent_kafka.admin
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from benchmarks import data, events
from benchmarks.setup import PARTITIONS, PRODUCER, Setup

_ADMIN: Any = confluent_kafka.admin  # its own annotations leave out half of it
_LEADERS_S = 20
_MARKERS_S = 90  # longer than transaction.timeout.ms: one that a killed process left open has ended by then
_FOR_EVER = {"retention.ms": "-1", "segment.ms": str(2**62)}
# Kafka rolls segments by the records' time: with a month of flights a second it would do nothing else.


@dataclass
class Kafka:
    """A running Kafka and registry, and what this benchmark made there; every name begins with `prefix`."""

    bootstrap: str
    registry_url: str
    prefix: str = field(default_factory=lambda: f"bench-{uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self._admin = _ADMIN.AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self.registry = SchemaRegistryClient({"url": self.registry_url, "timeout": 10})
        self._inputs: dict[data.Input, str] = {}
        self._asking: tuple[str, Consumer] | None = None
        self._runs = 0

    def setup(self, schema: str, what: data.Input) -> Setup:
        """A fresh group and fresh outputs on this input; `fill` it before."""
        self._runs += 1
        run = f"{self.prefix}-{self._runs}"
        output, changelog = f"{run}-output", f"{run}-hand-changelog"
        self.create(output, PARTITIONS, _FOR_EVER)
        self.create(changelog, PARTITIONS, {"cleanup.policy": "compact"})
        return Setup(
            bootstrap=self.bootstrap,
            registry=self.registry_url,
            flights=self._inputs[what],
            airlines=self._airlines(),
            output=output,
            changelog=changelog,
            group=run,
            flight_schema=self.register(f"{self.prefix}-flights", events.FLIGHT),
            output_schema=self.register(output, schema),
        )

    def register(self, topic: str, schema: str) -> int:
        """Schema id of a topic's values."""
        schema_id: int = self.registry.register_schema(f"{topic}-value", Schema(schema, "AVRO"))
        return schema_id

    def create(self, topic: str, partitions: int, config: dict[str, str]) -> None:
        """Create a topic and wait until it has leaders."""
        for future in self._admin.create_topics([_ADMIN.NewTopic(topic, partitions, 1, config=config)]).values():
            future.result(30)
        self.end_offsets(topic, partitions)

    def end_offsets(self, topic: str, partitions: int = PARTITIONS, *, committed: bool = False) -> list[int]:
        """High watermark of each partition, or its last stable offset; waits for leaders."""
        latest = {TopicPartition(topic, partition): _ADMIN.OffsetSpec.latest() for partition in range(partitions)}
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        deadline, last = time.monotonic() + _LEADERS_S, ""
        while time.monotonic() < deadline:
            try:
                answers = self._admin.list_offsets(latest, isolation_level=isolation, request_timeout=10)
                return [answer.result(10).offset for answer in answers.values()]
            except KafkaException as error:
                last = str(error)
            time.sleep(0.1)
            with suppress(KafkaException):  # or the client may go on asking whom it asked before
                self._admin.list_topics(topic, timeout=10)
        raise TimeoutError(f"topic {topic} has no leaders after {_LEADERS_S} seconds: {last}")

    def await_no_open_transaction(self, topic: str) -> None:
        """Wait until a read_committed reader sees all of the topic.

        A commit returns once the coordinator has decided on it. Markers reach each partition after that, and those
        of the group's offsets may be first (KIP-98, section 4.3).
        """
        deadline = time.monotonic() + _MARKERS_S
        while self.end_offsets(topic, committed=True) != self.end_offsets(topic):
            if time.monotonic() > deadline:
                raise TimeoutError(f"topic {topic} still has an open transaction after {_MARKERS_S} seconds")
            time.sleep(0.05)

    def committed(self, group: str, topic: str) -> int:
        """Records of the topic that the group has committed.

        Asked by a consumer that never joins, since the admin client's call may crash (librdkafka issue 5040).
        """
        if self._asking is None or self._asking[0] != group:
            self._stop_asking()
            settings = {"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 0}
            self._asking = group, Consumer(settings)
        wanted = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        with suppress(KafkaException):  # no coordinator yet
            return sum(max(0, found.offset) for found in self._asking[1].committed(wanted, timeout=10))
        return 0

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking[1].close()
            self._asking = None

    def schema(self, schema_id: int) -> str:
        """Text of a schema."""
        return str(self.registry.get_schema(schema_id).schema_str)

    def fill(self, what: data.Input, progress: Callable[[float], None]) -> None:
        """Make an input topic; `progress` is called with the records done."""
        topic = self._inputs[what] = f"{self.prefix}-flights-{what}"
        self.create(topic, PARTITIONS, _FOR_EVER)
        producer = Producer({"bootstrap.servers": self.bootstrap, **PRODUCER})
        produce, done = producer.produce, 0
        for month in data.in_topic(what, self.register(topic, events.FLIGHT)):
            rows = zip(month.values, month.keys, month.partitions, month.times_ms, strict=True)
            for value, key, partition, time_ms in rows:
                produce(topic, value, key, partition, None, None, time_ms)
            _flush(producer)
            done += len(month.values)
            progress(done)
        if sum(self.end_offsets(topic)) != what.records:
            raise RuntimeError(f"topic {topic} does not hold the {what.records} records that were produced")

    def _airlines(self) -> str:
        topic = f"{self.prefix}-airlines"
        if topic not in self._admin.list_topics(timeout=10).topics:
            schema_id = self.register(topic, events.AIRLINE)
            self.create(topic, 1, {"cleanup.policy": "compact"})
            producer = Producer({"bootstrap.servers": self.bootstrap, **PRODUCER})
            for carrier, value in zip(data.airlines()["carrier"], data.airline_values(schema_id), strict=True):
                producer.produce(topic, value, carrier.encode(), 0)
            _flush(producer)
        return topic

    def clear(self, prefix: str | None = None) -> None:
        """Delete topics, groups and subjects whose name begins with `prefix`, by default all of this benchmark."""
        self._stop_asking()
        prefix = prefix or self.prefix
        topics = [topic for topic in self._admin.list_topics(timeout=10).topics if topic.startswith(prefix)]
        groups = [group.group_id for group in self._admin.list_consumer_groups().result(10).valid]
        _quietly(self._admin.delete_topics(topics) if topics else {})
        mine = [group for group in groups if group.startswith(prefix)]
        _quietly(self._admin.delete_consumer_groups(mine) if mine else {})
        for subject in self.registry.get_subjects():
            if subject.startswith(prefix):
                self.registry.delete_subject(subject)
                self.registry.delete_subject(subject, permanent=True)


def _flush(producer: Any) -> None:
    if producer.flush(60):
        raise TimeoutError("the broker did not acknowledge all records within a minute")


def _quietly(futures: dict[str, Any]) -> None:
    for future in futures.values():
        with suppress(KafkaException):
            future.result(30)


@contextmanager
def cleared(kafka: Kafka) -> Iterator[Kafka]:
    """Whatever happens, nothing of the benchmark stays on the broker."""
    try:
        yield kafka
    finally:
        kafka.clear()
        kafka.registry.close()
