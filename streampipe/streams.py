"""Streams and tables: what a processor module calls to describe what happens to records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import polars as pl

from streampipe.aggregates import Aggregate
from streampipe.errors import TopologyError
from streampipe.keyed_state import asked_states
from streampipe.policies import EmitPolicy, LatePolicy, Retry
from streampipe.topology import joins, nodes
from streampipe.topology.arguments import check_keyed, checked, idle_after_ms, one_of
from streampipe.topology.builder import Builder, Columns, checked_name
from streampipe.topology.joins import JoinKind, StreamJoinKind, Within
from streampipe.topology.nodes import Node
from streampipe.windows import Duration, Update, Window, milliseconds

Function = TypeVar("Function", bound=Callable[..., Any])


def _expression(column: str | pl.Expr) -> pl.Expr:
    return pl.col(column) if isinstance(column, str) else column


def _named(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if columns is None else tuple(columns)


@dataclass(frozen=True, slots=True)
class Table:
    """The latest value by key; something to join with."""

    builder: Builder
    node: nodes.TableSource

    @checked
    def join(
        self,
        other: Table,
        *,
        how: StreamJoinKind = "inner",
        prefix: str = "",
        columns: tuple[str, ...] | list[str] | None = None,
        name: str | None = None,
    ) -> Stream:
        """Join with another table by their keys: a stream of the joined rows, one for each change of either table.

        It has the columns of this table and the other's, less its key: all, or those in `columns`, with `prefix`
        before their names. `left` keeps rows of this table without partner, `outer` those of the other one too. Where
        a row is gone, the Boolean column `retracted` is true and all but the key is null; `to_table` makes tombstones
        of that. Raises TopologyError unless both are co-partitioned tables.
        """
        node = joins.of_tables(
            self.builder, self.node, other.node, how=how, prefix=prefix, columns=_named(columns), name=name
        )
        return Stream(self.builder, self.builder.add(node))


class Stream:
    """Records flowing from a node. Every method returns a new stream and leaves this one usable: it may branch."""

    def __init__(self, builder: Builder, node: Node) -> None:
        self._builder = builder
        self.node = node

    @checked
    def filter(self, predicate: pl.Expr, *, name: str | None = None) -> Stream:
        """Keep records for which the predicate is true; null counts as false."""
        return self._then(nodes.Filter, "filter", name, key=self.node.key, predicate=predicate)

    @checked
    def with_columns(self, *columns: pl.Expr, name: str | None = None, **named: pl.Expr) -> Stream:
        """Add or replace columns. Expressions must be row by row: no aggregate, shift or window of Polars."""
        every = (*columns, *(e.alias(n) for n, e in named.items()))
        replaced = {e.meta.output_name() for e in every if not e.meta.has_multiple_outputs()}
        key = None if self.node.key and replaced & set(self.node.key) else self.node.key
        return self._then(nodes.WithColumns, "with-columns", name, key=key, columns=every)

    @checked
    def select(self, *columns: str | pl.Expr, name: str | None = None, **named: str | pl.Expr) -> Stream:
        """Keep just these columns, in this order."""
        every = (*map(_expression, columns), *(_expression(e).alias(n) for n, e in named.items()))
        kept = {e.meta.output_name() for e in every if e.meta.is_column()}
        key = self.node.key if self.node.key and set(self.node.key) <= kept else None
        return self._then(nodes.Select, "select", name, key=key, columns=every)

    @checked
    def expect(self, *, name: str | None = None, **rules: pl.Expr) -> Stream:
        """Validate: a record for which a rule is false is a dead letter of class `validation` naming the rule.

        Null passes, as in SQL CHECK. Of several broken rules the first one is named.
        """
        if not rules:
            raise TopologyError("expect() needs at least one rule: expect(positive=pl.col('x') > 0)")
        return self._then(nodes.Expect, "expect", name, key=self.node.key, rules=rules)

    @overload
    def handle(
        self,
        function: Callable[..., Any],
        *,
        to: str | None = None,
        schema: str | None = None,
        name: str | None = None,
        retry: Retry | None = None,
        on_timer: Callable[..., Any] | None = None,
        ttl: Duration | None = None,
        idle_after: Duration | None = None,
    ) -> Stream: ...

    @overload
    def handle(
        self,
        function: None = None,
        *,
        to: str | None = None,
        schema: str | None = None,
        name: str | None = None,
        retry: Retry | None = None,
        on_timer: Callable[..., Any] | None = None,
        ttl: Duration | None = None,
        idle_after: Duration | None = None,
    ) -> Callable[[Function], Function]: ...

    @checked
    def handle(
        self,
        function: Callable[..., Any] | None = None,
        *,
        to: str | None = None,
        schema: str | None = None,
        name: str | None = None,
        retry: Retry | None = None,
        on_timer: Callable[..., Any] | None = None,
        ttl: Duration | None = None,
        idle_after: Duration | None = None,
    ) -> Stream | Callable[[Function], Function]:
        """Call a Python function with each record: a dict, or the dataclass that its annotation names.

        It returns an event (dict or dataclass), a list of events, `Skip(reason)` or None; it may raise `Retryable`
        or `Fatal`, and any other exception makes the record a dead letter of class `processing`. Used as
        `stream.handle(fn, ...)` it returns the stream of events; as a decorator it returns the function.
        The events' schema is `schema`, else that of the topic `to`, else made of the returned dataclass.

        Further parameters, annotated as ValueState, MapState or ListState, are what the function remembers of the
        record's key; a call that fails changes none of it. `ttl`: everything of a key is forgotten after so much stream
        time without a change. With Timers it asks for calls of `on_timer(timer, ...)`, which may have such parameters
        too, and returns events likewise; `idle_after` is as for windows. Raises TopologyError when that needs a key
        and the stream has none that is known.
        """
        if function is None:

            def decorate(decorated: Function) -> Function:
                self.handle(
                    decorated, to=to, schema=schema, name=name, retry=retry, on_timer=on_timer, ttl=ttl,
                    idle_after=idle_after,
                )  # fmt: skip
                return decorated

            return decorate
        kind = getattr(function, "__name__", "handle").strip("<>").replace("_", "-")
        fields = {"function": function, "topic": to, "schema": schema, "retry": retry or Retry()}
        if on_timer is not None or ttl is not None or _asks_for_state(function):
            events = self._handle_with_state(kind, name, on_timer, ttl, idle_after, fields)
        else:
            events = self._then(nodes.Handle, kind, name, **fields)
        if to is not None:
            events.to(to, schema=schema)
        return events

    def _handle_with_state(
        self, kind: str, name: str | None, on_timer: Callable[..., Any] | None, ttl: Duration | None,
        idle_after: Duration | None, fields: dict[str, Any],
    ) -> Stream:  # fmt: skip
        check_keyed(self.node, "handle with state")
        ttl_ms = None if ttl is None else milliseconds(ttl)
        if ttl_ms is not None and ttl_ms <= 0:
            raise TopologyError(f"handle ttl={ttl!r}: use a length of time")
        unique = self._builder.named(name, kind)
        node = nodes.StatefulHandle(
            name=unique, inputs=(self.node,), key=self.node.key, changelog=self._builder.changelog(unique),
            on_timer=on_timer, ttl_ms=ttl_ms,
            idle_after_ms=idle_after_ms(idle_after, "updates" if on_timer is None else "final"), **fields,
        )  # fmt: skip
        return Stream(self._builder, self._builder.add(node))

    @overload
    def join(
        self,
        other: Table,
        *,
        on: Columns,
        how: JoinKind = "inner",
        prefix: str = "",
        columns: tuple[str, ...] | list[str] | None = None,
        name: str | None = None,
    ) -> Stream: ...

    @overload
    def join(
        self,
        other: Stream,
        *,
        on: Columns,
        within: Within,
        grace: Duration = "0s",
        how: StreamJoinKind = "inner",
        late: LatePolicy = "dead_letter",
        idle_after: Duration | None = None,
        prefix: str = "",
        columns: tuple[str, ...] | list[str] | None = None,
        name: str | None = None,
    ) -> Stream: ...

    @checked
    def join(
        self,
        other: Table | Stream,
        *,
        on: Columns,
        how: StreamJoinKind = "inner",
        prefix: str = "",
        columns: tuple[str, ...] | list[str] | None = None,
        name: str | None = None,
        **times: Any,
    ) -> Stream:
        """Look each record up in a table, or pair it with those of another stream, by the columns `on`.

        Adds the other's columns, less its key: all, or those in `columns`, with `prefix` before their names. `left`
        keeps records without match, their new columns being null; `outer`, for streams, those of the other side too.

        A table: `on` are columns of this stream, in the order of the table's key.

        A stream: both are keyed by `on`. A record of the other one is a partner if its time is `within` this long of
        the record's time: a duration, or one before and one after. `grace`: how much longer a partner may be on its
        way; `late` is what becomes of a record that comes when nothing may join it any more, and a record without
        partner goes out alone at that time. `idle_after` as for windows. A result's time is the later one of the two.

        Raises TopologyError when the sides are not keyed as the join needs them, naming the repair.
        """
        one_of("join how", how, StreamJoinKind)
        on = (on,) if isinstance(on, str) else tuple(on)
        how_joined: dict[str, Any] = {"on": on, "how": how, "prefix": prefix, "columns": _named(columns), "name": name}
        if isinstance(other, Stream):
            node = checked(joins.of_streams, "join")(self._builder, self.node, other.node, **how_joined, **times)
        elif times:
            raise TopologyError(f"join with table {other.node.topic!r}: {', '.join(times)} is for streams only")
        else:
            node = joins.with_table(self._builder, self.node, other.node, **how_joined)
        return Stream(self._builder, self._builder.add(node))

    @checked
    def key_by(self, *columns: str, name: str | None = None) -> Stream:
        """Make these columns the record key. Goes through a repartition topic unless they are the key already."""
        if not columns:
            raise TopologyError("key_by() needs at least one column")
        if self.node.key == columns:
            return self
        return self._through("key-by", name, columns)

    @checked
    def repartition(self, *, name: str | None = None) -> Stream:
        """Go through a repartition topic with the keys that the records have (KIP-221).

        The topic has as many partitions as the streams and tables that are joined behind it, so that inputs with
        different numbers can meet; where nothing is joined, as many as the stream came with.
        """
        return self._through("repartition", name, self.node.key)

    def _through(self, kind: str, name: str | None, key: nodes.Key | None) -> Stream:
        unique = self._builder.named(name, kind)
        topic = f"{self._builder.app_id}-{unique}-repartition"
        node = nodes.Repartition(name=unique, inputs=(self.node,), key=key, topic=topic)
        return Stream(self._builder, self._builder.add(node))

    @checked
    def window(
        self,
        window: Window,
        *,
        emit: EmitPolicy = "final",
        late: LatePolicy | Update = "dead_letter",
        idle_after: Duration | None = None,
        name: str | None = None,
    ) -> Windowed:
        """Group by key and window. `final`: one result a window, when it closes; `updates`: at most one a commit.

        `late` is what becomes of a record whose windows are all closed. `idle_after`: how long a partition must be
        silent before its windows close by the wall clock (outside of replays): by default "30s" if results are final,
        else "never". Raises TopologyError when the stream has no known key.
        """
        check_keyed(self.node, "window")
        one_of("window emit", emit, EmitPolicy)
        if not isinstance(late, Update):
            one_of("window late", late, LatePolicy)
        return Windowed(self, window, emit, late, idle_after_ms(idle_after, emit), name)

    @checked
    def agg(self, *, name: str | None = None, **aggregates: Aggregate) -> Stream:
        """Aggregate by key alone, for ever: at most one update for each key and commit, with all records so far.

        Columns are the key and one for each aggregate. Raises TopologyError when the stream has no known key.
        """
        check_keyed(self.node, "agg")
        return self._aggregate(nodes.RunningAggregate, "agg", name, aggregates)

    @checked
    def deduplicate(
        self,
        *,
        within: Duration,
        grace: Duration | None = None,
        late: LatePolicy = "dead_letter",
        name: str | None = None,
    ) -> Stream:
        """Of records with one key whose times are less than `within` apart, keep the first that comes.

        The others are filtered. Times may be `grace` behind stream time, by default as long as `within`; a record
        that is further behind is late, since what went through then is forgotten. For duplicates by an id of their
        own, call .key_by("id") before. Raises TopologyError when the stream has no known key.
        """
        check_keyed(self.node, "deduplicate")
        one_of("deduplicate late", late, LatePolicy)
        within_ms = milliseconds(within)
        grace_ms = within_ms if grace is None else milliseconds(grace)
        if within_ms <= 0 or grace_ms < 0:
            raise TopologyError(f"deduplicate within={within!r}, grace={grace!r}: use lengths of time")
        unique = self._builder.named(name, "deduplicate")
        node = nodes.Deduplicate(
            name=unique, inputs=(self.node,), key=self.node.key, within_ms=within_ms, grace_ms=grace_ms, late=late,
            changelog=self._builder.changelog(unique),
        )  # fmt: skip
        return Stream(self._builder, self._builder.add(node))

    def _aggregate(
        self, make: Callable[..., Node], kind: str, name: str | None, aggregates: dict[str, Aggregate], **fields: Any
    ) -> Stream:
        if not aggregates:
            raise TopologyError("agg() needs at least one aggregate: agg(n=agg.count())")
        unique = self._builder.named(name, kind)
        changelog = self._builder.changelog(unique)
        node = make(
            name=unique, inputs=(self.node,), key=self.node.key, changelog=changelog, aggregates=aggregates, **fields
        )
        return Stream(self._builder, self._builder.add(node))

    @checked
    def merge(self, *others: Stream, name: str | None = None) -> Stream:
        """Records of this and other streams, which must have the same columns, in the order of their times."""
        if not others:
            raise TopologyError("merge() needs at least one other stream")
        inputs = (self.node, *(o.node for o in others))
        keys = {n.key for n in inputs}
        node = nodes.Merge(
            name=self._builder.named(name, "merge"), inputs=inputs, key=keys.pop() if len(keys) == 1 else None
        )
        return Stream(self._builder, self._builder.add(node))

    @checked
    def branch(self, *predicates: pl.Expr, name: str | None = None) -> tuple[Stream, ...]:
        """Split: each record goes to the first predicate that is true for it; with none it is filtered."""
        base = self._builder.named(name, "branch")
        return tuple(
            self._then(
                nodes.Branch, "branch", f"{base}-arm-{arm + 1}", key=self.node.key, predicates=predicates, arm=arm
            )
            for arm in range(len(predicates))
        )

    @checked
    def to(self, topic: str, *, schema: str | None = None, name: str | None = None) -> None:
        """Write to a topic, keyed as the stream is. The schema is found as for `source`, else made of the columns."""
        checked_name(topic, "topic")
        self._then(
            nodes.Sink, "to", name or self._builder.unique(f"to-{topic}"), key=self.node.key,
            topic=topic, schema=schema,
        )  # fmt: skip

    @checked
    def to_table(self, topic: str, *, schema: str | None = None, name: str | None = None) -> None:
        """Write to a compacted topic, for `table()` to read: rows that are `retracted` become tombstones.

        For joins of tables; the column itself is not written. A stream without it is a TopologyError when the
        processor is built.
        """
        checked_name(topic, "topic")
        self._then(
            nodes.Sink, "to", name or self._builder.unique(f"to-{topic}"), key=self.node.key, topic=topic,
            schema=schema, table=True,
        )  # fmt: skip

    def _then(self, make: Callable[..., Node], kind: str, name: str | None, **fields: Any) -> Stream:
        node = make(name=self._builder.named(name, kind), inputs=(self.node,), **fields)
        return Stream(self._builder, self._builder.add(node))


@dataclass(frozen=True, slots=True)
class Windowed:
    """A stream grouped by key and window, waiting to be told what to compute."""

    stream: Stream
    window: Window
    emit: EmitPolicy
    late: LatePolicy | Update
    idle_after_ms: int | None
    name: str | None

    @checked
    def agg(self, **aggregates: Aggregate) -> Stream:
        """Aggregate: columns are the key, `window_start`, `window_end` (UTC) and one for each aggregate.

        Sessions whose results may be taken back have a Boolean column `retracted` before the aggregates.
        """
        return self.stream._aggregate(
            nodes.WindowedAggregate, "window", self.name, aggregates,
            window=self.window, emit=self.emit, late=self.late, idle_after_ms=self.idle_after_ms,
        )  # fmt: skip


def _asks_for_state(function: Callable[..., Any]) -> bool:
    try:
        return bool(asked_states(function))
    except NameError:
        return False  # said better when the processor is built
