"""The topics a processor needs: inputs that must exist, and those it may make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streampipe.brokers.port import Admin
from streampipe.errors import TopologyError, UnknownTopic
from streampipe.topology.graph import SubGraph, sub_graphs
from streampipe.topology.nodes import Repartition, Sink, Source, Stateful, TableSource, Topology

_KEEP = {"retention.ms": "-1", "segment.ms": str(2**62)}
"""Records carry event time, so a replay of old data would be deleted by age, and would roll a segment every few
thousand records: retention and segments by record time are off in the topics we make."""

_COMPACTED = {"cleanup.policy": "compact"}

Role = Literal["output", "repartition", "changelog", "dead letters"]


@dataclass(frozen=True, slots=True)
class NeededTopic:
    """A topic that the processor writes, with the partition count it would be made with."""

    name: str
    role: Role
    partitions: int
    config: dict[str, str]


def external_inputs(topology: Topology) -> list[str]:
    """Topics that somebody else writes."""
    return list(dict.fromkeys(n.topic for n in topology.of(Source, TableSource)))


def prepare_topics(topology: Topology, admin: Admin, *, create: bool) -> list[str]:
    """Check the inputs and make what is missing; returns the topics made.

    Raises UnknownTopic for a missing input (or, without `create`, for any missing topic), and TopologyError when
    inputs that meet in one sub-topology differ in partition count.
    """
    counts = admin.topics()
    for name in external_inputs(topology):
        if name not in counts:
            raise UnknownTopic(name)
    made = []
    for topic in needed_topics(topology, counts):
        if topic.name not in counts:
            if not create:
                raise UnknownTopic(topic.name)
            if admin.create_topic(topic.name, topic.partitions, topic.config):
                made.append(topic.name)
        elif topic.role in {"repartition", "changelog"} and counts[topic.name] != topic.partitions:
            raise TopologyError(
                f"{topic.role} topic {topic.name!r} has {counts[topic.name]} partitions and needs {topic.partitions}: "
                f"the inputs changed; delete it to start from empty state, or rename the processor"
            )
    return made


def needed_topics(topology: Topology, counts: dict[str, int]) -> list[NeededTopic]:
    """What the processor writes. Repartition topics take the largest count among the inputs they come from."""
    counts = dict(counts)
    needed: list[NeededTopic] = []
    for graph in sub_graphs(topology):
        count = _common_count(graph, counts)
        stateful = [node for node in graph.nodes if isinstance(node, Stateful)]
        needed += [NeededTopic(node.changelog, "changelog", count, _COMPACTED) for node in stateful]
        for node in topology.of(Repartition):
            if node.inputs[0] in graph.nodes:
                size = _partner_count(topology, node, counts) or count
                counts[node.topic] = size
                needed.append(NeededTopic(node.topic, "repartition", size, _KEEP))
        sinks = [node for node in graph.nodes if isinstance(node, Sink)]
        needed += [NeededTopic(n.topic, "output", count, _COMPACTED if n.table else _KEEP) for n in sinks]
    widest = max(counts[topic] for topic in external_inputs(topology))
    needed.append(NeededTopic(topology.dead_letter_topic, "dead letters", widest, _KEEP))
    return list({topic.name: topic for topic in needed}.values())


def _partner_count(topology: Topology, node: Repartition, counts: dict[str, int]) -> int | None:
    """Partitions of the other inputs that a repartition topic will meet, if there are some."""
    graph = next(g for g in sub_graphs(topology) if node in g.nodes)
    partners = [counts[t] for t in graph.inputs if t != node.topic and t in counts]
    return max(partners) if partners else None


def _common_count(graph: SubGraph, counts: dict[str, int]) -> int:
    sizes = {topic: counts[topic] for topic in graph.inputs}
    # plain merges need no agreement, but state and joins do
    keyed = bool(graph.tables) or any(isinstance(n, Stateful) for n in graph.nodes)
    if keyed and len(set(sizes.values())) > 1:
        listed = ", ".join(f"{topic} has {n}" for topic, n in sizes.items())
        raise TopologyError(
            f"inputs that meet in one sub-topology need the same number of partitions: {listed}; "
            f"put .key_by(...) before the smaller ones or recreate the topic with {max(sizes.values())}"
        )
    return max(sizes.values(), default=1)
