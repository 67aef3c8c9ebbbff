"""How far a consumer group is behind, in records and in seconds, seen from outside: also when every worker is dead.

Lag in seconds is the age of the oldest record not yet committed, read from that record's own timestamp; nothing is
interpolated. Commits are read before ends, so that lag may be overstated by the moment between, but never negative.
The end is the last stable offset: what an open transaction holds back is nobody's lag yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streampipe.brokers.port import Broker
from streampipe.errors import NotFound
from streampipe.records import NO_TIMESTAMP, TopicPartition

READ_TIMEOUT_S = 5.0
"""How long one record is waited for; a partition that takes longer has an unknown lag in seconds."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Lag of one partition. None is unknown, which is neither zero nor infinite.

    `committed` None: the group never committed there, so unless the partition is empty it has no lag, only a policy
    where to start. `oldest_ms` is
    the timestamp of the first record not yet committed, None when caught up or unknown. `lost` counts the records
    that retention removed before the group came to them. `is_upper_bound`: offsets are missing (compaction, aborted
    transactions), so there are fewer records than `records`.
    """

    topic: str
    partition: int
    committed: int | None
    start: int
    end: int
    records: int | None
    seconds: float | None
    oldest_ms: int | None = None
    lost: int = 0
    is_upper_bound: bool = False


@dataclass(frozen=True, slots=True)
class _First:
    """The first record at or after an offset: None offset means there is none before the end."""

    offset: int | None
    timestamp: int = NO_TIMESTAMP


class LagReader:
    """Reads lags with one admin client; remembers timestamps, so that a commit that rests costs no read again."""

    def __init__(self, broker: Broker, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._broker, self._now_ms = broker, now_ms
        self._admin = broker.admin()
        self._first: dict[tuple[TopicPartition, int], _First] = {}

    def group(self, group: str, *, ask_members: bool = True) -> list[PartitionLag]:
        """Lags of all partitions of the topics a group reads, by topic and partition.

        Which topics it reads is known from its commits and, with `ask_members`, from its members.

        Raises NotFound for a group without commits and members, Unavailable when the broker is.
        """
        committed = dict(self._admin.committed(group))
        members = self._admin.describe_group(group).members if ask_members else ()
        partitions = set(committed) | {p for member in members for p in member.partitions}
        if not partitions and not members:
            raise NotFound(f"group {group!r} has neither members nor committed offsets")
        counts = self._admin.topics()
        topics = {p.topic for p in partitions} & counts.keys()  # a deleted topic leaves commits behind
        return self._lags(
            [TopicPartition(topic, p) for topic in sorted(topics) for p in range(counts[topic])], committed
        )

    def close(self) -> None:
        """Release the admin client."""
        self._admin.close()

    def _lags(self, partitions: list[TopicPartition], committed: Mapping[TopicPartition, int]) -> list[PartitionLag]:
        starts = self._admin.offsets(partitions, "earliest")
        ends = self._admin.offsets(partitions, "latest", "read_committed")
        known = {p: max(committed[p], starts[p]) for p in partitions if p in committed}
        self._first = {
            key: first for key, first in self._first.items() if known.get(key[0]) == key[1] and first.offset is not None
        }
        return [self._one(p, committed.get(p), starts[p], ends[p]) for p in partitions]

    def _one(self, at: TopicPartition, committed: int | None, start: int, end: int) -> PartitionLag:
        if committed is None:  # behind of nothing where nothing is, else a matter of where it would start
            lag: tuple[int, float] | tuple[None, None] = (0, 0.0) if start == end else (None, None)
            return PartitionLag(at.topic, at.partition, None, start, end, *lag)
        position = max(committed, start)
        lost = position - committed
        first = self._first_record(at, position, end) if position < end else _First(None)
        if first is None:
            return PartitionLag(at.topic, at.partition, committed, start, end, end - position, None, None, lost)
        if first.offset is None:  # caught up, or nothing but transaction markers is left
            return PartitionLag(at.topic, at.partition, committed, start, end, 0, 0.0, None, lost)
        oldest = first.timestamp if first.timestamp != NO_TIMESTAMP else None
        seconds = None if oldest is None else max(0.0, (self._now_ms() - oldest) / 1000)
        return PartitionLag(
            at.topic, at.partition, committed, start, end, end - position, seconds, oldest, lost,
            is_upper_bound=first.offset > position,
        )  # fmt: skip

    def _first_record(self, at: TopicPartition, position: int, end: int) -> _First | None:
        """The first record from `position` on that is visible before `end`; None when reading took too long."""
        found = self._first.get((at, position))
        if found is None:
            found = self._read(at, position, end)
            if found is not None:
                self._first[at, position] = found
        return found

    def _read(self, at: TopicPartition, position: int, end: int) -> _First | None:
        reader = self._broker.reader({at: position})
        try:
            give_up = time.monotonic() + READ_TIMEOUT_S
            while (left := give_up - time.monotonic()) > 0:
                for batch in reader.poll(1, min(left, 0.5)):
                    return _First(int(batch.offsets[0]), int(batch.timestamps[0]))
                if reader.position(at) >= end:
                    return _First(None)
            return None
        finally:
            reader.close()
