"""What tests of brokers need: unique names, conditions with a deadline, clients that are closed in the end."""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from streampipe.brokers.port import Admin, Broker, Consumer, Isolation, Producer, Reader
from streampipe.records import ProduceBatch, Record, TopicPartition, records_of

DEADLINE_S = 45.0


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def eventually(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait until the condition is true; fails with `what` did not happen."""
    until([], condition, what, deadline_s)


@dataclass
class Member:
    """A consumer, its listener, and everything that was told and handed over."""

    consumer: Consumer
    during_revoke: Callable[[Sequence[TopicPartition]], None] = lambda _: None
    during_assign: Callable[[Sequence[TopicPartition]], None] = lambda _: None
    events: list[tuple[str, tuple[TopicPartition, ...]]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    open: bool = True

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("assigned", tuple(partitions)))
        self.during_assign(partitions)

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("revoked", tuple(partitions)))
        self.during_revoke(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("lost", tuple(partitions)))

    def told(self, kind: str) -> set[TopicPartition]:
        return {tp for event, partitions in self.events if event == kind for tp in partitions}

    def owned(self) -> set[TopicPartition]:
        return self.consumer.assignment() if self.open else set()

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    def step(self, timeout_s: float = 0.05, max_records: int = 1000) -> int:
        """Poll once; the number of records so far."""
        for batch in self.consumer.poll(max_records, timeout_s):
            self.records += records_of(batch)
        return len(self.records)

    def close(self) -> None:
        if self.open:
            self.open = False
            self.consumer.close()


def until(
    members: Sequence[Member], condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S
) -> None:
    """Poll the open members in turn until the condition is true; no partition ever has two owners meanwhile."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"in {deadline_s} s it did not come true that {what}"
        alive = [member for member in members if member.open]
        for member in alive:
            member.step()
            owned = [tp for each in alive for tp in each.owned()]
            assert len(owned) == len(set(owned)), f"partitions with two owners: {sorted(owned)}"
        if not alive:
            time.sleep(0.01)


def settle(members: Sequence[Member], partitions: Collection[TopicPartition]) -> None:
    """Poll until these members own all the partitions, none of them nothing."""

    def settled() -> bool:
        owned = [member.owned() for member in members]
        return all(owned) and set().union(*owned) == set(partitions)

    until(members, settled, "the members share all partitions")


class Lab:
    """Clients of one broker for one test, closed when it ends."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._stack = ExitStack()
        self.admin: Admin = broker.admin()
        self._stack.callback(self.admin.close)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = unique("topic")
        assert self.admin.create_topic(name, partitions, config)
        return name

    def producer(self, transactional_id: str | None = None) -> Producer:
        producer = self.broker.producer(transactional_id)
        self._stack.callback(producer.close)
        return producer

    def produce(self, topic: str, *values: bytes | None, **columns: Any) -> None:
        """Produce values to partition 0, or as the other columns say, and wait until they are there."""
        producer = self.producer()
        producer.produce(batch(topic, *values, **columns))
        producer.flush()

    def reader(self, *partitions: TopicPartition, isolation: Isolation = "read_committed") -> Reader:
        reader = self.broker.reader(dict.fromkeys(partitions, 0), isolation)
        self._stack.callback(reader.close)
        return reader

    def read(self, *partitions: TopicPartition, isolation: Isolation = "read_committed") -> list[Record]:
        """Everything there is now, from offset 0 to the present end."""
        reader = self.reader(*partitions, isolation=isolation)
        ends = self.admin.offsets(partitions, "latest", isolation)
        return read_to(reader, ends)

    def member(self, group: str, *topics: str, **options: Any) -> Member:
        """A member that subscribed; it is not assigned anything before it is polled."""
        member = Member(self.broker.consumer(group, **options))
        self._stack.callback(member.close)
        member.consumer.subscribe(topics, member)
        return member


def read_to(reader: Reader, ends: Mapping[TopicPartition, int]) -> list[Record]:
    """What a reader hands over until its positions reach `ends`."""
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while any(reader.position(tp) < end for tp, end in ends.items()):
        assert time.monotonic() < deadline, f"the reader stays at {[reader.position(tp) for tp in ends]} of {ends}"
        for found in reader.poll(1000, 0.1):
            records += records_of(found)
    return records


def batch(topic: str, *values: bytes | None, **columns: Any) -> ProduceBatch:
    """Values as a batch for partition 0, unless `partitions` or `keys` are given."""
    keys = columns.pop("keys", None)
    if keys is None:
        keys = [None] * len(values)
        columns.setdefault("partitions", [0] * len(values))
    return ProduceBatch(topic, keys, values, **columns)


def numbered(prefix: str, count: int) -> list[bytes]:
    return [f"{prefix}{i}".encode() for i in range(count)]
