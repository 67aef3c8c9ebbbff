"""The topics a processor needs: inputs that must exist, and those it may make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streampipe.brokers.port import Admin
from streampipe.errors import TopologyError, UnknownTopic
from streampipe.topology.copartitioning import repairs
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
    inputs that meet in one sub-topology differ in partition count, naming the repair.
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
    """What the processor writes, given how many partitions each topic has that is there."""
    graphs = sub_graphs(topology)
    own = _repartition_counts(topology, graphs, counts)
    counts = counts | own
    needed = [NeededTopic(topic, "repartition", count, _KEEP) for topic, count in own.items()]
    for graph in graphs:
        count = _common_count(graph, counts)
        stateful = [node for node in graph.nodes if isinstance(node, Stateful)]
        needed += [NeededTopic(node.changelog, "changelog", count, _COMPACTED) for node in stateful]
        sinks = [node for node in graph.nodes if isinstance(node, Sink)]
        needed += [NeededTopic(n.topic, "output", count, _COMPACTED if n.table else _KEEP) for n in sinks]
    widest = max(counts[topic] for topic in external_inputs(topology))
    needed.append(NeededTopic(topology.dead_letter_topic, "dead letters", widest, _KEEP))
    return list({topic.name: topic for topic in needed}.values())


def _repartition_counts(topology: Topology, graphs: list[SubGraph], counts: dict[str, int]) -> dict[str, int]:
    """Partitions of the repartition topics: as many as the inputs they meet, else as the inputs they come from.

    The largest of several counts. Other repartition topics are met too, but count only where nothing else is.
    """
    external = {topic: counts[topic] for topic in external_inputs(topology)}
    sized: dict[str, int] = {}
    for node in topology.of(Repartition):  # those before it come first
        met = next(set(graph.inputs) - {node.topic} for graph in graphs if node in graph.nodes)
        before = next(set(graph.inputs) for graph in graphs if node.inputs[0] in graph.nodes)
        choices = ((met, external), (met, counts | sized), (before, external | sized))
        sized[node.topic] = next(
            size for topics, known in choices if (size := max((known[t] for t in topics & known.keys()), default=0))
        )
    return sized


def _common_count(graph: SubGraph, counts: dict[str, int]) -> int:
    sizes = {topic: counts[topic] for topic in graph.inputs}
    # plain merges need no agreement, but state and joins do
    keyed = bool(graph.tables) or any(isinstance(n, Stateful) for n in graph.nodes)
    if keyed and len(set(sizes.values())) > 1:
        listed = ", ".join(f"{topic} has {n}" for topic, n in sizes.items())
        raise TopologyError(
            f"inputs that meet in one sub-topology need the same number of partitions: {listed}; "
            f"{'; '.join(repairs(graph, counts))}"
        )
    return max(sizes.values(), default=1)
