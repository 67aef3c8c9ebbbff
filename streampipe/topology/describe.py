"""A topology as text for a terminal and as Mermaid for a page."""

from __future__ import annotations

from streampipe.topology.graph import sub_graphs
from streampipe.topology.nodes import (
    Branch,
    Expect,
    Filter,
    Handle,
    Join,
    Node,
    Repartition,
    Select,
    Sink,
    Source,
    TableSource,
    Topology,
    WindowedAggregate,
    WithColumns,
)


def detail(node: Node) -> str:
    """What a node does, in a few words."""
    match node:
        case TableSource():
            return f"{'global table' if node.everywhere else 'table'} {node.topic} by {', '.join(node.key or ())}"
        case Source():
            return f"topic {node.topic}" + (f", event time {node.event_time}" if node.event_time else "")
        case Filter():
            return str(node.predicate)
        case WithColumns() | Select():
            return ", ".join(map(str, node.columns))
        case Expect():
            return ", ".join(f"{name}: {rule}" for name, rule in node.rules.items())
        case Branch():
            return str(node.predicates[node.arm])
        case Handle():
            return f"{getattr(node.function, '__qualname__', 'function')}()"
        case Join():
            return f"{node.how} join with {node.table.name} on {', '.join(node.on)}"
        case Repartition():
            return f"through {node.topic}, key {', '.join(node.key or ())}"
        case WindowedAggregate():
            names = ", ".join(f"{name}={a.kind}" for name, a in node.aggregates.items())
            return f"tumbling {node.window.size} grace {node.window.grace}, emit {node.emit}, late {node.late}: {names}"
        case Sink():
            return f"topic {node.topic}"
    return ""


def describe(topology: Topology) -> str:
    """Sub-topologies with their nodes, one a line: name, what it does, and which nodes come next."""
    following: dict[int, list[str]] = {}
    for node in topology.nodes:
        for before in node.inputs:
            following.setdefault(id(before), []).append(node.name)
    lines = [f"Processor {topology.app_id} (version {topology.version})"]
    shared = [n for n in topology.of(TableSource) if n.everywhere]
    if shared:
        lines.append("Global tables")
        lines += [_line(node, following) for node in shared]
    for number, graph in enumerate(sub_graphs(topology)):
        lines.append(f"Sub-topology {number} (inputs: {', '.join(graph.inputs)})")
        lines += [_line(node, following) for node in graph.nodes]
    lines.append(f"Dead letters: topic {topology.dead_letter_topic}")
    return "\n".join(lines)


def _line(node: Node, following: dict[int, list[str]]) -> str:
    arrow = f"  -> {', '.join(following[id(node)])}" if id(node) in following else ""
    return f"  {node.kind:18} {node.name}: {detail(node)}{arrow}"


def mermaid(topology: Topology) -> str:
    """The same as a Mermaid flow chart."""
    ids = {id(node): f"n{i}" for i, node in enumerate(topology.nodes)}
    lines = ["flowchart LR"]
    for node in topology.nodes:
        left, right = ("[(", ")]") if isinstance(node, (Source, TableSource, Sink, Repartition)) else ("[", "]")
        text = f"{node.name}<br/>{detail(node)}".replace('"', "'")
        lines.append(f'    {ids[id(node)]}{left}"{text}"{right}')
    lines += [f"    {ids[id(before)]} --> {ids[id(node)]}" for node in topology.nodes for before in node.inputs]
    return "\n".join(lines)
