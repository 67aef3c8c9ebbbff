"""Topics, offsets and groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource, ConfigSource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from streampipe.brokers.kafka.errors import STALE_LEADER, UNKNOWN_TOPIC, Translator, kafka_error
from streampipe.brokers.kafka.reader import close_within_deadline
from streampipe.brokers.kafka.settings import REQUEST_TIMEOUT_S
from streampipe.brokers.port import At, GroupInfo, Isolation, Member, TopicInfo
from streampipe.errors import ConfigError, Unavailable, UnknownTopic
from streampipe.records import TopicPartition

T = TypeVar("T")
_ISOLATION = {
    "read_committed": IsolationLevel.READ_COMMITTED,
    "read_uncommitted": IsolationLevel.READ_UNCOMMITTED,
}
_GONE = {KafkaError.GROUP_ID_NOT_FOUND}
_NO_COORDINATOR = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_HAS_MEMBERS = {KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.STALE_MEMBER_EPOCH}
_NO_LEADER = {KafkaError._NOENT} | STALE_LEADER | UNKNOWN_TOPIC
_EXISTS = {KafkaError.TOPIC_ALREADY_EXISTS}
_ENDS: dict[str, Callable[[], OffsetSpec]] = {"earliest": OffsetSpec.earliest, "latest": OffsetSpec.latest}
_POLL_S = 0.02


class KafkaAdmin:
    """Every call waits at most ten seconds for the broker, then raises Unavailable."""

    def __init__(
        self, make: Callable[[], AdminClient], errors: Translator, make_member: Callable[[str], Consumer]
    ) -> None:
        self._errors = errors
        self._make = make
        self._client = errors.open(make)
        self._failed = False
        self._make_member = make_member
        self._members: dict[str, Consumer] = {}

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """After an Unavailable the next call is made with a new client: the old one may have lost its brokers.

        See `Polling._check_connection`.
        """
        if self._failed:
            self._close_members()
            self._client, self._failed = self._errors.open(self._make), False
        try:
            yield
        except Unavailable:
            self._failed = True
            raise

    def topics(self) -> dict[str, int]:
        """Partition counts, Kafka's own topics (__…) left out."""
        listed = self._list().topics
        return {n: len(t.partitions) for n, t in listed.items() if t.error is None and not n.startswith("__")}

    def describe_topic(self, topic: str) -> TopicInfo:
        """One topic with what was set for it. Raises UnknownTopic."""
        listed = self._list().topics.get(topic)
        if listed is None or listed.error is not None:
            raise UnknownTopic(topic)
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self._one(f"describing {topic}", self._client.describe_configs, [resource], topic=topic)
        own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        config = {name: entry.value for name, entry in entries.items() if entry.source == own}
        asked = TopicCollection([topic])
        described = self._one(f"describing {topic}", self._client.describe_topics, asked, topic=topic)
        return TopicInfo(topic, len(listed.partitions), config, str(described.topic_id))

    def create_topic(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> bool:
        """Create with the broker's replication factor and wait for its leaders. Raises ConfigError, Unavailable."""
        asked = [NewTopic(topic, partitions, config=dict(config or {}))]
        answer = self._one(f"creating {topic}", self._client.create_topics, asked, _EXISTS)
        self._until(lambda: self._has_leaders(topic), f"topic {topic} has no leader yet")
        return not isinstance(answer, KafkaError)

    def delete_topic(self, topic: str) -> None:
        """Delete and wait until it is not listed. Raises UnknownTopic."""
        self._one(f"deleting {topic}", self._client.delete_topics, [topic], topic=topic)
        self._until(lambda: topic not in self._list().topics, f"topic {topic} is still being deleted")

    def offsets(
        self, partitions: Collection[TopicPartition], at: At, isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """Offset of each partition at `at`; the end for a time after the last record. Raises UnknownTopic."""
        found = self._offsets(partitions, at, isolation)
        late = [partition for partition, offset in found.items() if offset < 0]
        return found | (self._offsets(late, "latest", isolation) if late else {})

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Every committed offset of a group in a topic that exists; pending transactions do not count.

        Asked by a consumer that never joins: the admin client's call for it crashes the process when the answer is
        that the coordinator is elsewhere (librdkafka issue 5040), as while a broker starts or leaves.
        """
        places = [KafkaPartition(topic, p) for topic, count in self.topics().items() for p in range(count)]
        if not places:
            return {}
        answer = self._until(lambda: self._committed(group, places), f"offsets of {group}: no coordinator yet")
        return {TopicPartition(p.topic, p.partition): p.offset for p in answer if p.error is None and p.offset >= 0}

    def _committed(self, group: str, places: list[KafkaPartition]) -> list[KafkaPartition] | None:
        """The partitions with their offsets; None while the group has no coordinator."""
        if group not in self._members:
            self._members[group] = self._errors.open(lambda: self._make_member(group))
        try:
            answer: list[KafkaPartition] = self._members[group].committed(places, timeout=REQUEST_TIMEOUT_S)
        except KafkaException as exception:
            error = kafka_error(exception)
            if error is None:
                raise
            if error.code() in _NO_COORDINATOR:
                return None
            raise self._errors.of(error, f"reading offsets of {group}") from None
        for place in answer:
            if place.error is not None and place.error.code() not in UNKNOWN_TOPIC:  # deleted just now
                raise self._errors.of(place.error, f"reading offsets of {group}", place.topic)
        return answer

    def set_committed(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Set offsets of a group without members. Raises ConfigError while it has some."""
        places = [KafkaPartition(p.topic, p.partition, offset) for p, offset in offsets.items()]
        if not places:
            return
        self._until(lambda: self._set(group, places), f"setting offsets of {group}: no coordinator yet")

    def _set(self, group: str, places: list[KafkaPartition]) -> bool:
        """Whether the offsets are set; False while the group has no coordinator, which each partition tells."""
        doing, asked = f"setting offsets of {group}", [ConsumerGroupTopicPartitions(group, places)]
        answer = self._one(doing, self._client.alter_consumer_group_offsets, asked, _HAS_MEMBERS)
        errors = [answer] if isinstance(answer, KafkaError) else [p.error for p in answer.topic_partitions if p.error]
        for error in errors:
            if error.code() in _HAS_MEMBERS:
                raise ConfigError(f"group {group!r} has members; stop them before setting its offsets")
            if error.code() not in _NO_COORDINATOR:
                raise self._errors.of(error, doing)
        return not errors

    def groups(self) -> list[str]:
        """Names of all groups with members or offsets."""
        doing = "listing groups"
        listed = self._wait(doing, self._client.list_consumer_groups(request_timeout=REQUEST_TIMEOUT_S))
        return sorted(group.group_id for group in listed.valid if group.state.name != "DEAD")

    def describe_group(self, group: str) -> GroupInfo:
        """State and members; `dead` when nobody knows the group."""
        # With a client of its own: one whose coordinator restarted since it last asked may time out for ever, or end
        # the process when the answer comes after the time-out (librdkafka issue 4605).
        client = self._errors.open(self._make)
        found = self._one(f"describing group {group}", client.describe_consumer_groups, [group], _GONE)
        if isinstance(found, KafkaError):
            return GroupInfo(group, "dead")
        return GroupInfo(group, found.state.name.lower(), tuple(map(_member, found.members)))

    def delete_group(self, group: str) -> None:
        """Forget a group. Raises ConfigError while it has members."""
        asked = self._client.delete_consumer_groups
        answer = self._one(f"deleting group {group}", asked, [group], _GONE | _HAS_MEMBERS)
        if isinstance(answer, KafkaError) and answer.code() in _HAS_MEMBERS:
            raise ConfigError(f"group {group!r} has members; stop them before deleting it")

    def close(self) -> None:
        """Release the clients."""
        self._close_members()
        del self._client

    def _close_members(self) -> None:
        for member in self._members.values():
            close_within_deadline(member.close, self._errors.name)
        self._members = {}

    def _offsets(self, partitions: Collection[TopicPartition], at: At, isolation: str) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        spec = OffsetSpec.for_timestamp(at) if isinstance(at, int) else _ENDS[at]()
        asked = {KafkaPartition(p.topic, p.partition): spec for p in partitions}
        return self._until(lambda: self._listed(asked, isolation), "a partition has no leader")

    def _listed(self, asked: dict[Any, OffsetSpec], isolation: str) -> dict[TopicPartition, int] | None:
        """The offsets; None while a leader is being elected."""
        level = _ISOLATION[isolation]
        futures = self._client.list_offsets(asked, isolation_level=level, request_timeout=REQUEST_TIMEOUT_S)
        found: dict[TopicPartition, int] = {}
        for partition, future in futures.items():
            answer = self._wait(f"looking up offsets of {partition.topic}", future, _NO_LEADER, partition.topic)
            if isinstance(answer, KafkaError):
                self._require(asked)
                return None
            found[TopicPartition(partition.topic, partition.partition)] = answer.offset
        return found

    def _require(self, partitions: Collection[Any]) -> None:
        """Raise UnknownTopic for a partition that does not exist; librdkafka only says that it found no leader."""
        known = self._list().topics
        for partition in partitions:
            listed = known.get(partition.topic)
            if listed is None or listed.error is not None or partition.partition not in listed.partitions:
                raise UnknownTopic(partition.topic)

    def _has_leaders(self, topic: str) -> bool:
        listed = self._list().topics.get(topic)
        return (
            listed is not None
            and listed.error is None
            and len(listed.partitions) > 0
            and all(p.leader >= 0 and p.error is None for p in listed.partitions.values())
        )

    def _list(self) -> Any:
        with self._calling():
            return self._errors.call("looking up topics", lambda: self._client.list_topics(timeout=REQUEST_TIMEOUT_S))

    def _until(self, condition: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        with self._calling():
            while not (answer := condition()):
                if time.monotonic() > deadline:
                    raise Unavailable(f"{what} on broker {self._errors.name}; try again")
                time.sleep(_POLL_S)
        return answer

    def _one(
        self, doing: str, request: Any, asked: Any, expected: Collection[int] = (), topic: str | None = None
    ) -> Any:
        """The only answer of a request about one thing, or its KafkaError when that is `expected`."""
        return self._until(lambda: self._asked(doing, request, asked, expected, topic), f"{doing}: no coordinator yet")

    def _asked(self, doing: str, request: Any, asked: Any, expected: Collection[int], topic: str | None) -> Any:
        """As `_one`; None while the group's coordinator is being elected, as on a broker that just started."""
        try:
            futures = request(asked, request_timeout=REQUEST_TIMEOUT_S)
        except (KafkaException, ValueError, TypeError) as exception:
            raise ConfigError(f"{doing}: {self._errors.clean(exception)}") from None
        [future] = futures.values()  # `futures` must live until the answer came: it owns the request
        answer = self._wait(doing, future, {*expected, *_NO_COORDINATOR}, topic)
        moving = isinstance(answer, KafkaError) and answer.code() in _NO_COORDINATOR
        return None if moving else answer or True  # what only says "done" answers None

    def _wait(self, doing: str, future: Any, expected: Collection[int] = (), topic: str | None = None) -> Any:
        try:
            return future.result(REQUEST_TIMEOUT_S + 2)
        except KafkaException as exception:
            error = kafka_error(exception)
            if error is None:
                raise
            if error.code() in expected:
                return error
            raise self._errors.of(error, doing, topic) from None
        except TimeoutError:
            raise self._errors.unreachable(doing) from None


def _member(member: Any) -> Member:
    owned = member.assignment.topic_partitions if member.assignment else []
    return Member(
        member.member_id, tuple(sorted(TopicPartition(p.topic, p.partition) for p in owned)), member.client_id
    )
