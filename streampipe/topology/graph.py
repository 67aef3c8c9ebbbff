"""Sub-topologies: the parts of a topology that repartition topics cut it into."""

from __future__ import annotations

from dataclasses import dataclass

from streampipe.topology.nodes import Node, Repartition, Source, TableSource, Topology


@dataclass(frozen=True, slots=True)
class SubGraph:
    """A part whose inputs must be co-partitioned. A repartition node stands in the part that reads its topic."""

    nodes: tuple[Node, ...]
    streams: tuple[str, ...]
    tables: tuple[str, ...]
    depth: int = 0
    """How many repartition topics lie before it at most."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every partitioned input topic."""
        return self.streams + self.tables


def sub_graphs(topology: Topology) -> list[SubGraph]:
    """The parts, upstream first, then in the order of their first nodes. Global tables belong to none."""
    part: dict[int, int] = {}
    members: dict[int, list[Node]] = {}
    for node in topology.nodes:
        if isinstance(node, TableSource) and node.everywhere:
            continue
        upstream = () if isinstance(node, Repartition) else node.inputs
        joined = sorted({part[id(n)] for n in upstream if id(n) in part})
        home = joined[0] if joined else id(node)
        mine = members.setdefault(home, [])
        for other in joined[1:]:
            moved = members.pop(other)
            mine += moved
            part.update((id(n), home) for n in moved)
        mine.append(node)
        part[id(node)] = home
    order = {id(n): i for i, n in enumerate(topology.nodes)}
    graphs = [sorted(nodes, key=lambda n: order[id(n)]) for nodes in members.values()]
    graphs.sort(key=lambda nodes: order[id(nodes[0])])
    return sorted((_sub_graph(nodes) for nodes in graphs), key=lambda graph: graph.depth)


def _sub_graph(nodes: list[Node]) -> SubGraph:
    streams = [n.topic for n in nodes if isinstance(n, (Source, Repartition))]
    tables = [n.topic for n in nodes if isinstance(n, TableSource)]
    depth = max(map(_repartitions_before, nodes), default=0)
    return SubGraph(tuple(nodes), tuple(dict.fromkeys(streams)), tuple(dict.fromkeys(tables)), depth)


def _repartitions_before(node: Node) -> int:
    return isinstance(node, Repartition) + max(map(_repartitions_before, node.inputs), default=0)
