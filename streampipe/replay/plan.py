"""A replay: the processor runs again over a stretch of its inputs, apart from the live one.

It has a group, state, dead letters and output topics of its own, all named with a suffix, so the live processor
does not notice. Streams are replayed between two positions; tables that are joined partition by partition are read
whole, as the live processor would have at its start; global tables are not part of the plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from streampipe.brokers.port import Admin
from streampipe.errors import ConfigError, UnknownTopic
from streampipe.records import TopicPartition
from streampipe.replay.positions import EARLIEST, LATEST, Position, offsets_at
from streampipe.topology.nodes import Repartition, Sink, Source, Stateful, TableSource, Topology

SUFFIX = re.compile(r"[A-Za-z0-9._-]{1,50}")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Offsets start <= offset < end of a partition."""

    topic: str
    partition: int
    start: int
    end: int

    @property
    def records(self) -> int:
        """How many records that is, at most: compaction and transactions leave gaps."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay reads; `topology` is the renamed one."""

    topology: Topology
    stretches: tuple[Stretch, ...]

    @property
    def group(self) -> str:
        """Its consumer group."""
        return self.topology.app_id

    @property
    def outputs(self) -> list[str]:
        """Topics that it writes for others to read."""
        return sorted({node.topic for node in self.topology.of(Sink)})

    @property
    def records(self) -> int:
        """Records to process, at most."""
        return sum(stretch.records for stretch in self.stretches)

    @property
    def until(self) -> dict[TopicPartition, int]:
        """Where it ends."""
        return {TopicPartition(s.topic, s.partition): s.end for s in self.stretches}


def renamed(topology: Topology, suffix: str) -> Topology:
    """The topology of a replay. Raises ConfigError for a suffix that cannot be part of a topic's name."""
    if not SUFFIX.fullmatch(suffix):
        raise ConfigError(f"suffix {suffix!r}: use 1 to 50 of letters, digits, '.', '_' and '-', such as -2013")
    return topology.renamed(suffix)


def make_plan(
    topology: Topology, admin: Admin, start: Position, until: Position, *, resume: bool = False
) -> ReplayPlan:
    """The stretches of a renamed topology's inputs; with `resume`, from where its group stopped.

    Raises UnknownTopic, and ConfigError when the group or its topics hold data of an earlier replay already.
    """
    counts = admin.topics()
    committed = admin.committed(topology.app_id)
    if not resume:
        _refuse_used(topology, admin, counts, committed)
    stretches: list[Stretch] = []
    tables = {node.topic for node in topology.of(TableSource) if not node.everywhere}
    streams = {node.topic for node in topology.of(Source)} - tables
    for topic in sorted(streams | tables):
        if topic not in counts:
            raise UnknownTopic(topic)
        partitions = [TopicPartition(topic, p) for p in range(counts[topic])]
        whole = topic in tables
        starts = offsets_at(admin, partitions, EARLIEST if whole else start)
        ends = offsets_at(admin, partitions, LATEST if whole else until)
        for at in partitions:
            first = committed.get(at, starts[at])
            stretches.append(Stretch(topic, at.partition, first, max(first, ends[at])))
    return ReplayPlan(topology, tuple(stretches))


def begin(plan: ReplayPlan, admin: Admin) -> None:
    """Put the replay's group where it starts. Raises ConfigError while the group has members."""
    admin.set_committed(plan.group, {TopicPartition(s.topic, s.partition): s.start for s in plan.stretches})


def until_to_bytes(plan: ReplayPlan) -> bytes:
    """The ends, for a worker in another process."""
    return orjson.dumps([(s.topic, s.partition, s.end) for s in plan.stretches])


def until_from_bytes(data: bytes) -> dict[TopicPartition, int]:
    """The inverse of `until_to_bytes`."""
    return {TopicPartition(topic, partition): end for topic, partition, end in orjson.loads(data)}


def _refuse_used(
    topology: Topology, admin: Admin, counts: Mapping[str, int], committed: Mapping[TopicPartition, int]
) -> None:
    again = "choose another --into, or go on with --resume"
    if committed or admin.describe_group(topology.app_id).members:
        raise ConfigError(f"group {topology.app_id!r} was used already; {again}")
    own = [topology.dead_letter_topic, *(node.topic for node in topology.of(Sink, Repartition))]
    own += [node.changelog for node in topology.of(Stateful)]
    for topic in own:
        if topic in counts:
            partitions = [TopicPartition(topic, p) for p in range(counts[topic])]
            if any(admin.offsets(partitions, "latest").values()):
                raise ConfigError(f"topic {topic!r} holds records already; {again}")
