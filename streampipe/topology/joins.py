"""Which joins there can be: nodes for them, or a TopologyError that names the repair."""

from __future__ import annotations

from typing import Literal

from streampipe.errors import TopologyError
from streampipe.policies import LatePolicy
from streampipe.topology.arguments import idle_after_ms, one_of
from streampipe.topology.builder import Builder
from streampipe.topology.nodes import Join, Key, Node, Repartition, StreamJoin, TableJoin, TableSource, entries
from streampipe.windows import Duration, milliseconds

JoinKind = Literal["inner", "left"]
StreamJoinKind = Literal["inner", "left", "outer"]
Within = Duration | tuple[Duration, Duration]
"""How far from each other times may be: either way, or before and after."""


def of_tables(
    builder: Builder, left: TableSource, right: TableSource, *, how: StreamJoinKind, prefix: str,
    columns: tuple[str, ...] | None, name: str | None,
) -> Node:  # fmt: skip
    """Two tables by their keys."""
    one_of("join how", how, StreamJoinKind)
    for table in (left, right):
        if table.everywhere:
            raise TopologyError(
                f"join of tables {left.topic!r} and {right.topic!r}: {table.topic!r} is a "
                f"global_table, whose changes come to every worker; make it a table()"
            )
        if table.history_ms is not None:
            raise TopologyError(
                f"join of tables {left.topic!r} and {right.topic!r}: {table.topic!r} has a history, "
                f"which streams can join only; declare the table once more without"
            )
    return TableJoin(
        name=builder.named(name, "join"), inputs=(left, right), key=left.key, how=how, prefix=prefix, columns=columns
    )


def with_table(
    builder: Builder, stream: Node, table: TableSource, *, on: Key, how: StreamJoinKind, prefix: str,
    columns: tuple[str, ...] | None, name: str | None,
) -> Node:  # fmt: skip
    """A stream's records looked up in a table."""
    if how == "outer":
        raise TopologyError(f"join with table {table.topic!r}: {how} is for streams only")
    if not table.everywhere and stream.key != on:
        raise TopologyError(
            f"join with table {table.topic!r} on {', '.join(on)}: the stream is keyed by "
            f"{', '.join(stream.key or ()) or 'nothing known'}; put .key_by({', '.join(map(repr, on))}) "
            f"before the join, or make it a global_table"
        )
    if len(on) != len(table.key or ()):
        raise TopologyError(
            f"join with table {table.topic!r} on {', '.join(on)}: its key has {len(table.key or ())} "
            f"column(s), {', '.join(table.key or ())}"
        )
    if len(on) > 1 and table.key is not None and on != table.key and not table.everywhere and _placed_by_us(stream):
        names = ", ".join(f"{theirs}=pl.col({mine!r})" for mine, theirs in zip(on, table.key, strict=True))
        raise TopologyError(
            f"join with table {table.topic!r} on {', '.join(on)}: a key of several columns has their names in "
            f"it, which are {', '.join(table.key)} in the table, so that equal keys lie in other partitions; put "
            f".with_columns({names}).key_by({', '.join(map(repr, table.key))}) before the join"
        )
    return Join(
        name=builder.named(name, "join"), inputs=(stream, table), key=stream.key, on=on, how=how, prefix=prefix,
        columns=columns,
    )  # fmt: skip


def of_streams(
    builder: Builder, left: Node, right: Node, *, on: Key, how: StreamJoinKind, prefix: str,
    columns: tuple[str, ...] | None, name: str | None, within: Within | None = None, grace: Duration = "0s",
    late: LatePolicy = "dead_letter", idle_after: Duration | None = None,
) -> Node:  # fmt: skip
    """Pairs of two streams' records."""
    one_of("join late", late, LatePolicy)
    if within is None:
        raise TopologyError(f"join on {', '.join(on)}: a join of streams needs within=..., such as within='10m'")
    _check_sides(left, right, on)
    before, after = within if isinstance(within, tuple) else (within, within)
    lengths = [milliseconds(length) for length in (before, after, grace)]
    if min(lengths) < 0:
        raise TopologyError(f"join within={within!r}, grace={grace!r}: must not be negative")
    unique = builder.named(name, "join")
    return StreamJoin(
        name=unique, inputs=(left, right), key=on, changelog=builder.changelog(unique), how=how, before_ms=lengths[0],
        after_ms=lengths[1], grace_ms=lengths[2], late=late, prefix=prefix, columns=columns,
        idle_after_ms=idle_after_ms(idle_after, "updates" if how == "inner" else "final"),
    )  # fmt: skip


def _placed_by_us(stream: Node) -> bool:
    """Whether the processor made the keys that decide in which partitions a stream's records are."""
    while stream.inputs:
        if isinstance(stream, Repartition) and stream.new_key is not None:
            return True
        stream = stream.inputs[0]
    return False


def _check_sides(left: Node, right: Node, on: Key) -> None:
    for side, node in (("left", left), ("right", right)):
        if node.key != on:
            raise TopologyError(
                f"join on {', '.join(on)}: the {side} stream is keyed by "
                f"{', '.join(node.key or ()) or 'nothing known'}; put .key_by({', '.join(map(repr, on))}) "
                f"before the join"
            )
    if shared := entries(left) & entries(right):
        raise TopologyError(
            f"join on {', '.join(on)}: both streams come from topic {min(shared)!r}; write one of them to a "
            f"topic of its own, and read that with another source()"
        )
