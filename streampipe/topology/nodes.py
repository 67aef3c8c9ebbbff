"""The nodes of a topology: plain values that say what to do. Nothing here does it (see `operators`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from streampipe.aggregates import Aggregate
from streampipe.policies import EmitPolicy, InvalidTimestampPolicy, LatePolicy, Retry
from streampipe.windows import Update, Window

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Node:
    """A step with a stable name. `key`: the columns that the record key is known to be made of, if it is known."""

    name: str
    inputs: tuple[Node, ...] = ()
    key: Key | None = None

    @property
    def kind(self) -> str:
        """Lower-case word for drawings and messages."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Source(Node):
    """Records of a topic. `event_time` names the column that replaces the record's timestamp.

    `max_ahead_ms` bounds how far ahead of the wall clock it may be; `invalid_timestamp` says what becomes of a record
    beyond that, or without a time that can be used (None: it is a dead letter where a time is needed).
    """

    topic: str
    event_time: str | None = None
    max_ahead_ms: int | None = None
    invalid_timestamp: InvalidTimestampPolicy | None = None
    schema: str | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TableSource(Node):
    """The latest value by key of a compacted topic: co-partitioned, or whole on every worker (`everywhere`).

    `history_ms`: for how long behind stream time it is known what a row was.
    """

    topic: str
    everywhere: bool
    schema: str | None = None
    history_ms: int | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Filter(Node):
    """Keeps records for which the predicate is true; null counts as false."""

    predicate: pl.Expr


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WithColumns(Node):
    """Adds or replaces columns."""

    columns: tuple[pl.Expr, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Select(Node):
    """Keeps just these columns."""

    columns: tuple[pl.Expr, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Expect(Node):
    """Validation rules by name: a record for which one is false is a dead letter; null passes, as in SQL CHECK."""

    rules: dict[str, pl.Expr]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Handle(Node):
    """A Python function, row by row. `topic` is where its output's schema is looked up when `schema` is None."""

    function: Callable[..., Any]
    topic: str | None
    schema: str | None
    retry: Retry


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Join(Node):
    """Looks each record up in a table (the second input) by the columns `on`, adding the table's columns."""

    on: Key
    how: Literal["inner", "left"]
    prefix: str
    columns: tuple[str, ...] | None

    @property
    def table(self) -> TableSource:
        """The table side."""
        table = self.inputs[1]
        assert isinstance(table, TableSource)
        return table


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TableJoin(Node):
    """Rows of two tables (left, right) with one key, as they are after each change of either."""

    how: Literal["inner", "left", "outer"]
    prefix: str
    columns: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Repartition(Node):
    """Sends records through a topic of its own, so that equal keys meet on one task."""

    topic: str

    @property
    def new_key(self) -> Key | None:
        """The columns to make the records' keys of, unless they keep those that they have."""
        return None if self.key == self.inputs[0].key else self.key


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stateful(Node):
    """A node with keyed state of its own, which lives in the topic `changelog`."""

    changelog: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WindowedAggregate(Stateful):
    """Aggregates by key and window. `idle_after_ms`: silence after which stream time follows the clock; None: never."""

    window: Window
    emit: EmitPolicy
    late: LatePolicy | Update
    idle_after_ms: int | None
    aggregates: dict[str, Aggregate]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RunningAggregate(Stateful):
    """Aggregates by key alone, which never end."""

    aggregates: dict[str, Aggregate]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StreamJoin(Stateful):
    """Pairs of records of two streams (left, right) with one key whose times are near each other.

    A right record is a partner from `before_ms` before the left one's time until `after_ms` after it. `idle_after_ms`
    as for windows.
    """

    how: Literal["inner", "left", "outer"]
    before_ms: int
    after_ms: int
    grace_ms: int
    late: LatePolicy
    idle_after_ms: int | None
    prefix: str
    columns: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Deduplicate(Stateful):
    """Of records with one key whose times are less than `within_ms` apart, the first that comes."""

    within_ms: int
    grace_ms: int
    late: LatePolicy


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StatefulHandle(Stateful):
    """A Python function that remembers things of each key, and may be called again when a timer rings (`on_timer`).

    `ttl_ms`: after how much stream time without a change everything of a key is forgotten, but for its timers.
    `topic` and `schema` as for `Handle`, `idle_after_ms` as for windows.
    """

    function: Callable[..., Any]
    on_timer: Callable[..., Any] | None
    topic: str | None
    schema: str | None
    retry: Retry
    ttl_ms: int | None
    idle_after_ms: int | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Merge(Node):
    """Records of several streams with the same columns."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Branch(Node):
    """One arm of a branch: the records that satisfy `predicates[arm]` and none before it."""

    predicates: tuple[pl.Expr, ...]
    arm: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sink(Node):
    """Writes to a topic; as a table, with a tombstone for each row that is taken back (`retracted`)."""

    topic: str
    schema: str | None = None
    table: bool = False
    stands_for: str | None = None
    """The live topic whose schema counts, when this is a replay's topic."""


def entries(node: Node) -> set[str]:
    """The topics whose records come to a node, in the very batches they were consumed in."""
    if isinstance(node, (Source, Repartition)):
        return {node.topic}
    return set().union(*map(entries, node.inputs)) if node.inputs else set()


@dataclass(frozen=True, slots=True)
class Topology:
    """All nodes of a processor, inputs before the nodes that use them. `app_id` names group and internal topics."""

    app_id: str
    version: int
    nodes: tuple[Node, ...]

    @property
    def dead_letter_topic(self) -> str:
        """Where records that failed go."""
        return f"{self.app_id}-dlq"

    def of(self, *kinds: type[Node]) -> list[Any]:
        """Nodes of these kinds, in order."""
        return [node for node in self.nodes if isinstance(node, kinds)]

    def renamed(self, suffix: str) -> Topology:
        """The same topology with group, state, dead letters and output topics of its own: all end in `suffix`."""
        app_id = self.app_id + suffix
        moved: dict[int, Node] = {}
        for node in self.nodes:
            new = replace(node, inputs=tuple(moved[id(n)] for n in node.inputs))
            if isinstance(new, Sink):
                new = replace(new, topic=new.topic + suffix, stands_for=new.topic)
            elif isinstance(new, Repartition):
                new = replace(new, topic=app_id + new.topic.removeprefix(self.app_id))
            elif isinstance(new, Stateful):
                new = replace(new, changelog=app_id + new.changelog.removeprefix(self.app_id))
            moved[id(node)] = new
        return Topology(app_id, self.version, tuple(moved.values()))
