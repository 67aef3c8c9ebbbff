"""The admin client."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from streampipe.brokers.local import groups, log, transactions
from streampipe.brokers.local.database import Database
from streampipe.brokers.port import At, GroupInfo, Isolation, Offsets, TopicInfo
from streampipe.clock import Clock
from streampipe.errors import ConfigError
from streampipe.records import TopicPartition

TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
"""Kafka's rule for topic names."""
INTEGER_SETTINGS = ("retention.ms", "max.message.bytes")
"""Topic settings that the log honours, beside cleanup.policy; all others are kept and shown."""


class LocalAdmin:
    """`Admin` on the embedded log."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def topics(self) -> dict[str, int]:
        """Partition count by topic name."""
        return dict(self._db.query("SELECT name, partitions FROM topics ORDER BY name"))

    def describe_topic(self, topic: str) -> TopicInfo:
        """One topic. Raises UnknownTopic."""
        return log.topic(self._db, topic)

    def create_topic(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> bool:
        """Create; False when it exists. Raises ConfigError for a name, count or setting that cannot be."""
        if not TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
            raise ConfigError(f"topic {topic!r}: use up to 249 letters, digits, dots, dashes and underscores")
        if partitions < 1:
            raise ConfigError(f"topic {topic!r}: needs at least one partition, not {partitions}")
        settings = dict(config or {})
        for name in INTEGER_SETTINGS:
            if not re.fullmatch(r"-?\d+", settings.get(name, "0")):
                raise ConfigError(f"topic {topic!r}: {name} is a whole number, not {settings[name]!r}")
        with self._db.write():
            created = log.create_topic(self._db, topic, partitions, settings)
            if created:
                groups.rebalance_subscribers(self._db, topic)
        return created

    def delete_topic(self, topic: str) -> None:
        """Delete with all records and committed offsets. Raises UnknownTopic."""
        with self._db.write():
            log.delete_topic(self._db, topic)
            groups.rebalance_subscribers(self._db, topic)

    def offsets(
        self, partitions: Collection[TopicPartition], at: At, isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """Offset of each partition at `at`. Raises UnknownTopic."""
        transactions.expire(self._db, self._clock.now_ms())
        ids = log.partition_ids(self._db, partitions)
        ends = log.ends(self._db, ids.values())
        if at == "earliest":
            return {tp: ends[i].start for tp, i in ids.items()}
        if at == "latest":
            return {tp: ends[i].end(isolation) for tp, i in ids.items()}
        return {tp: log.offset_at(self._db, i, at, ends[i].end(isolation)) for tp, i in ids.items()}

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Every committed offset of a group."""
        return groups.committed(self._db, group)

    def set_committed(self, group: str, offsets: Offsets) -> None:
        """Set offsets of a group without members. Raises ConfigError while it has some, UnknownTopic."""
        log.partition_ids(self._db, offsets)
        with self._db.write():
            groups.expire(self._db, self._clock.now_ms())
            groups.check_empty(self._db, group)
            groups.set_committed(self._db, group, offsets)

    def groups(self) -> list[str]:
        """Names of all groups that have members or offsets."""
        self._expire()
        return groups.names(self._db)

    def describe_group(self, group: str) -> GroupInfo:
        """State and members."""
        self._expire()
        return groups.describe(self._db, group)

    def delete_group(self, group: str) -> None:
        """Forget a group. Raises ConfigError while it has members."""
        with self._db.write():
            groups.expire(self._db, self._clock.now_ms())
            groups.check_empty(self._db, group)
            groups.delete(self._db, group)

    def _expire(self) -> None:
        with self._db.write():
            groups.expire(self._db, self._clock.now_ms())

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
