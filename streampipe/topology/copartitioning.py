"""Where partitions of different numbers meet in a sub-topology, and what to write there instead."""

from __future__ import annotations

from collections.abc import Mapping

from streampipe.topology.graph import SubGraph
from streampipe.topology.nodes import Join, Merge, Node, Repartition, Source, TableJoin, TableSource


def repairs(graph: SubGraph, counts: Mapping[str, int]) -> list[str]:
    """What to change, with the code, until all inputs that meet have one number of partitions; none if they do.

    A stream goes through `repartition()`, which can make any number. A table cannot: streams take its number, and
    tables that are joined with each other need topics with the number of the largest.
    """
    tables = _table_counts(graph, counts)
    found = [_new_topic(topic, counts[topic], count) for topic, count in tables.items() if count != counts[topic]]
    sizes: dict[int, int] = {}
    for node in graph.nodes:
        if isinstance(node, TableSource):
            sizes[id(node)] = tables[node.topic]
        elif isinstance(node, (Source, Repartition)):
            sizes[id(node)] = counts[node.topic]
        else:
            meeting = [(side, sizes[id(side)]) for side in node.inputs if id(side) in sizes]  # global tables are not
            wanted = meeting[-1][1] if isinstance(node, Join) else max(size for _, size in meeting)
            found += [_repartition(node, side, size, wanted) for side, size in meeting if size != wanted]
            sizes[id(node)] = wanted
    return found


def _table_counts(graph: SubGraph, counts: Mapping[str, int]) -> dict[str, int]:
    """How many partitions each table's topic needs."""
    needed = {topic: counts[topic] for topic in graph.tables}
    pairs = [[t.topic for t in n.inputs if isinstance(t, TableSource)] for n in graph.nodes if isinstance(n, TableJoin)]
    for _ in pairs:  # once for each, since a chain of joins hands the largest number on one join at a time
        for pair in pairs:
            needed |= dict.fromkeys(pair, max(needed[topic] for topic in pair))
    return needed


def _repartition(node: Node, side: Node, size: int, wanted: int) -> str:
    method = "merge" if isinstance(node, Merge) else "join"
    code = f".repartition().{method}(...)" if side is node.inputs[0] else f".{method}(other.repartition(), ...)"
    return f"{side.name!r} brings {size} partitions to {node.name!r}, which needs {wanted}: write {code} there"


def _new_topic(topic: str, size: int, wanted: int) -> str:
    new = f"{topic}-{wanted}"
    return (
        f"table topic {topic!r} has {size} partitions and needs {wanted}: "
        f"streampipe topic create {new} --partitions {wanted} --set cleanup.policy=compact, "
        f"write its records there, and read .table({new!r}, ...)"
    )
