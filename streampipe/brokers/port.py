"""The Broker seam: what the rest of streampipe may ask of a broker, and what it may not assume.

Implementations: `local` (embedded log on SQLite) and `kafka` (confluent-kafka). One conformance suite runs on both.
All objects are used from one thread each. Every method may raise `Unavailable` (nothing happened or it is safe to
call again) unless said otherwise. Offsets are int64, timestamps milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from streampipe.records import ProduceBatch, RecordBatch, TopicPartition

Isolation = Literal["read_committed", "read_uncommitted"]
Offsets = Mapping[TopicPartition, int]
At = Literal["earliest", "latest"] | int
"""Where in a partition: its first offset, its end, or the first record at or after a time in milliseconds."""


class RebalanceListener(Protocol):
    """Told about the group's decisions from inside `Consumer.poll`, on the same thread.

    A raising listener does not break the group: the consumer finishes its own part first, then poll raises it.
    """

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions were added. They start at the committed offset, else at the configured reset."""

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions go away when this returns; committing their offsets in here still works."""

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions are already gone to somebody else; nothing of theirs may be committed."""


class Reader(Protocol):
    """Reads given partitions from given offsets, outside any group."""

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Up to `max_records` records, waiting up to `timeout_s` for the first.

        Runs of one topic each, in order; records of one partition keep their order. Empty: none came in time.
        With read_committed, records of open and aborted transactions never appear.
        """

    def position(self, partition: TopicPartition) -> int:
        """Offset of the next record to be handed over; moves past control records and compaction gaps as well."""

    def close(self) -> None:
        """Release everything, within ten seconds also when the broker is gone."""


class Consumer(Reader, Protocol):
    """A member of a consumer group. Polling is what keeps it a member."""

    def subscribe(self, topics: Collection[str], listener: RebalanceListener) -> None:
        """Join the group for these topics. Raises UnknownTopic."""

    def assignment(self) -> set[TopicPartition]:
        """What this member owns now."""

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Hand over nothing from these owned partitions until resumed; others are unaffected."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Hand over records of these partitions again, from where they were paused."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Make `offset` the next one handed over for an owned partition; records already fetched are dropped."""

    def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's committed offsets; partitions without one are absent. Waits for pending transactions."""

    def commit(self, offsets: Offsets) -> None:
        """Commit outside a transaction. Raises Fenced when this member no longer owns a partition."""

    def group_metadata(self) -> object:
        """Token of the membership as of the last poll, for `Producer.send_offsets` (KIP-447). Opaque."""


class Producer(Protocol):
    """Produces columns; with a transactional id, only inside transactions.

    Every error of a record, synchronous or by delivery report, is remembered: the next `flush` or `commit` raises
    it instead of succeeding.
    """

    def produce(self, batch: ProduceBatch) -> None:
        """Queue the records; blocks while the queue is full. Raises UnknownTopic, TransactionAborted."""

    def flush(self) -> None:
        """Return when every queued record is acknowledged; raises otherwise."""

    def begin(self) -> None:
        """Start a transaction."""

    def send_offsets(self, offsets: Offsets, group_metadata: object) -> None:
        """Make consumed offsets part of the transaction; raises Fenced if that membership is over."""

    def commit(self) -> None:
        """Commit; on return everything is visible atomically. Raises TransactionAborted or Fenced: nothing is.

        Raises Unavailable when the outcome is unknown: close this producer and open another one of the same id.
        """

    def abort(self) -> None:
        """Abort the open transaction, if any."""

    def close(self) -> None:
        """Release everything within ten seconds; an open transaction is aborted."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the admin sees it; `config` holds what differs from the broker's defaults, Kafka's names."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    """Tells it from one of the same name that was deleted (KIP-516)."""


@dataclass(frozen=True, slots=True)
class Member:
    """A live member of a group."""

    id: str
    partitions: tuple[TopicPartition, ...]
    client: str = ""


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A consumer group; `state` is Kafka's word in lower case (empty, stable, dead, …)."""

    name: str
    state: str
    members: tuple[Member, ...] = ()


class Admin(Protocol):
    """Topics, offsets and groups."""

    def topics(self) -> dict[str, int]:
        """Partition count by topic name, internal topics of the broker left out."""

    def describe_topic(self, topic: str) -> TopicInfo:
        """One topic. Raises UnknownTopic."""

    def create_topic(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> bool:
        """Create; False when it exists already (with whatever partition count). Usable when this returns."""

    def delete_topic(self, topic: str) -> None:
        """Delete with all records and committed offsets. Raises UnknownTopic."""

    def offsets(
        self, partitions: Collection[TopicPartition], at: At, isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """Offset of each partition at `at`. The end is the LSO for read_committed, else the high watermark.

        A time after the last record gives the end. Raises UnknownTopic.
        """

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Every committed offset of a group; empty for an unknown group."""

    def set_committed(self, group: str, offsets: Offsets) -> None:
        """Set offsets of a group without members. Raises ConfigError while it has some."""

    def groups(self) -> list[str]:
        """Names of all groups that have members or offsets."""

    def describe_group(self, group: str) -> GroupInfo:
        """State and members; a group nobody knows is `dead` without members."""

    def delete_group(self, group: str) -> None:
        """Forget a group without members. Unknown groups are fine."""

    def close(self) -> None:
        """Release everything."""


class Broker(Protocol):
    """Opens clients. `name` is its address for messages, secrets redacted."""

    name: str

    def consumer(
        self,
        group: str,
        *,
        reset: Literal["earliest", "latest"] = "earliest",
        co_partitioned: bool = False,
        client_id: str = "",
    ) -> Consumer:
        """A member of `group`. `co_partitioned`: partition p of all subscribed topics goes to one member."""

    def reader(self, offsets: Offsets, isolation: Isolation = "read_committed") -> Reader:
        """A reader from these offsets on."""

    def producer(self, transactional_id: str | None = None) -> Producer:
        """A producer; with an id it first fences and aborts whatever the last holder of that id left open."""

    def admin(self) -> Admin:
        """An admin client."""
