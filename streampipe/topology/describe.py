"""A topology as text for a terminal and as Mermaid for a page."""

from __future__ import annotations

import re
from typing import Any

from streampipe.topology.graph import sub_graphs
from streampipe.topology.nodes import (
    Branch,
    Deduplicate,
    Expect,
    Filter,
    Handle,
    Join,
    Node,
    Repartition,
    RunningAggregate,
    Select,
    Sink,
    Source,
    Stateful,
    StatefulHandle,
    StreamJoin,
    TableJoin,
    TableSource,
    Topology,
    WindowedAggregate,
    WithColumns,
)

_TEXT = re.compile(r'"[^"]*"')
_COLUMN = re.compile(r'\bcol\("(\w+)"\)')
_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_OPERATION = re.compile(r"\((.*)\) (\S+) \((.*)\)")
_LEFT, _RIGHT, _OPEN, _CLOSE, _TEXT_MARK = "\1", "\2", "\3", "\4", "\5"


def readable(expression: object) -> str:
    """A Polars expression as people write it: `[(col("x")) > (dyn int: 5)]` is `x > 5`."""
    texts: list[str] = []

    def hidden(match: re.Match[str]) -> str:
        texts.append(match[0])
        return _TEXT_MARK

    line = _TEXT.sub(hidden, _COLUMN.sub(r"\1", str(expression)))
    line = re.sub(r"\bdyn (int|float): ", "", line)
    while (plainer := _INNERMOST.sub(_unbracketed, line)) != line:
        line = plainer
    line = re.sub(f"^{_LEFT}(.*){_RIGHT}$", _outermost, line)
    line = line.translate({ord(_LEFT): "(", ord(_RIGHT): ")", ord(_OPEN): "[", ord(_CLOSE): "]"})
    return re.sub(_TEXT_MARK, lambda _: texts.pop(0), line)


def _unbracketed(match: re.Match[str]) -> str:
    """Brackets stand for an operation, the arguments of a call, or a list; what is inside has none any more."""
    operation = _OPERATION.fullmatch(match[1])
    inside = " ".join(operation.groups()) if operation else match[1]
    before, after = match.string[: match.start()], match.string[match.end() :]
    if re.search(r"\w\($", before) and after.startswith(")"):
        return inside
    return f"{_LEFT}{inside}{_RIGHT}" if operation else f"{_OPEN}{inside}{_CLOSE}"


def _outermost(match: re.Match[str]) -> str:
    """The parentheses around the whole are left out, if they are a pair."""
    depth = 1
    for character in match[1]:
        depth += (character == _LEFT) - (character == _RIGHT)
        if depth == 0:
            return match[0]
    return match[1]


def detail(node: Node) -> str:
    """What a node does, in a few words."""
    match node:
        case TableSource():
            kind = "global table" if node.everywhere else "table"
            history = "" if node.history_ms is None else f", history {node.history_ms} ms"
            return f"{kind} {node.topic} by {', '.join(node.key or ())}{history}"
        case Source():
            time = f", event time {node.event_time}" if node.event_time else ""
            ahead = "" if node.max_ahead_ms is None else f" at most {node.max_ahead_ms / 1000:g}s ahead"
            return f"topic {node.topic}{time}{ahead}"
        case Filter():
            return readable(node.predicate)
        case WithColumns() | Select():
            return ", ".join(map(readable, node.columns))
        case Expect():
            return ", ".join(f"{name}: {readable(rule)}" for name, rule in node.rules.items())
        case Branch():
            return readable(node.predicates[node.arm])
        case Handle():
            return _call(node.function)
        case Join():
            return f"{node.how} join with {node.table.name} on {', '.join(node.on)}"
        case TableJoin():
            left, right = node.inputs
            return f"{node.how} join of tables {left.name} and {right.name}"
        case Repartition():
            return f"through {node.topic}, key {', '.join(node.new_key) if node.new_key else 'unchanged'}"
        case Stateful():
            return _detail_with_state(node)
        case Sink():
            return f"{'table' if node.table else 'topic'} {node.topic}"
    return ""


def _detail_with_state(node: Stateful) -> str:
    match node:
        case StreamJoin():
            return f"{node.how} join within {_within(node)}, late {node.late}{_idle(node)}"
        case Deduplicate():
            return f"first within {node.within_ms} ms, grace {node.grace_ms} ms, late {node.late}"
        case WindowedAggregate():
            names = ", ".join(f"{name}={a.kind}" for name, a in node.aggregates.items())
            return f"{node.window}, emit {node.emit}, late {node.late}{_idle(node)}: {names}"
        case StatefulHandle():
            timer = f", {_call(node.on_timer)} when a timer rings" if node.on_timer else ""
            ttl = "" if node.ttl_ms is None else f", forgets after {node.ttl_ms} ms"
            return f"{_call(node.function)} with state{timer}{ttl}{_idle(node)}"
        case RunningAggregate():
            return "running " + ", ".join(f"{name}={a.kind}" for name, a in node.aggregates.items())
    return ""


def _within(node: StreamJoin) -> str:
    span = f"{node.before_ms} ms before to {node.after_ms} ms after"
    return f"{span}, grace {node.grace_ms} ms" if node.grace_ms else span


def _call(function: Any) -> str:
    return f"{getattr(function, '__qualname__', 'function')}()"


def _idle(node: WindowedAggregate | StreamJoin | StatefulHandle) -> str:
    """After what silence the clock decides, where it is not what is usual."""
    match node:
        case StreamJoin():
            waits = node.how != "inner"
        case StatefulHandle():
            waits = node.on_timer is not None
        case _:
            waits = node.emit == "final"
    usual = 30_000 if waits else None
    if node.idle_after_ms == usual:
        return ""
    return ", idle after " + ("never" if node.idle_after_ms is None else f"{node.idle_after_ms / 1000:g}s")


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
