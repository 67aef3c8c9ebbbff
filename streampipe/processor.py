"""What a processor module begins with: `Processor`, its sources and its tables.

Calling these methods only describes; nothing runs and nothing is read until a worker takes the description.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streampipe.errors import TopologyError
from streampipe.policies import InvalidTimestampPolicy
from streampipe.streams import Stream, Table
from streampipe.topology import nodes
from streampipe.topology.arguments import checked, one_of
from streampipe.topology.builder import Builder, Columns, checked_name, key_of
from streampipe.topology.nodes import Node, Topology
from streampipe.windows import Duration, milliseconds


class Processor:
    """One processor: its name is its consumer group and the prefix of its internal topics.

    `version` counts up when the shape of its state changes. Raises TopologyError for a name that is no topic name.
    """

    @checked
    def __init__(self, name: str, *, version: int = 1) -> None:
        self.name = checked_name(name, "processor")
        self.version = version
        self._builder = Builder(name)

    @checked
    def source(
        self,
        topic: str,
        *,
        event_time: str | None = None,
        key: Columns | None = None,
        schema: str | None = None,
        max_ahead: Duration | None = None,
        invalid_timestamp: InvalidTimestampPolicy | None = None,
        name: str | None = None,
    ) -> Stream:
        """Records of a topic, as columns of its reader schema.

        `event_time`: the column (a timestamp, a date or integer milliseconds) that replaces the record's timestamp.
        `key`: declares which columns the record key is made of, so that no repartition is needed for them.
        `schema`: path of an .avsc file or schema text; by default <schemas folder>/<topic>.avsc, else the latest
        one that the registry has for <topic>-value.
        `max_ahead`: how far ahead of the wall clock a record's time may be, except in a replay, which knows no clock.
        `invalid_timestamp`: whether a record with a time beyond that, or with none (null or negative), is a dead letter
        of class `validation` or dropped and counted. By default it is a dead letter; one with a negative timestamp of
        its own, where no `event_time` is named, only if it comes to a window.
        """
        checked_name(topic, "topic")
        max_ahead_ms = None if max_ahead is None else milliseconds(max_ahead)
        if max_ahead_ms is not None and max_ahead_ms < 0:
            raise TopologyError(f"source {topic!r}: max_ahead={max_ahead!r} must not be negative")
        if invalid_timestamp is not None:
            one_of(f"source {topic!r} invalid_timestamp", invalid_timestamp, InvalidTimestampPolicy)
        return self._stream(
            nodes.Source, name or topic, key=key_of(key), topic=topic, event_time=event_time, schema=schema,
            max_ahead_ms=max_ahead_ms, invalid_timestamp=invalid_timestamp,
        )  # fmt: skip

    @checked
    def table(
        self,
        topic: str,
        *,
        key: Columns,
        history: Duration | None = None,
        schema: str | None = None,
        name: str | None = None,
    ) -> Table:
        """The latest value by key of a topic, co-partitioned with the streams that join it on the same key.

        With a `history`, a record is joined with the row as it was at the record's time (KIP-889), for so long behind
        the newest record of the table's partition; older than that, it finds the newest row if that is old enough,
        else none. The topic must keep what is that old: no compaction before (`min.compaction.lag.ms`).
        """
        history_ms = None if history is None else milliseconds(history)
        if history_ms is not None and history_ms < 0:
            raise TopologyError(f"table {topic!r}: history={history!r} must not be negative")
        return self._table(topic, key, schema, name, everywhere=False, history_ms=history_ms)

    @checked
    def global_table(self, topic: str, *, key: Columns, schema: str | None = None, name: str | None = None) -> Table:
        """The latest value by key of a topic, whole on every worker: for small tables, joined on any columns."""
        return self._table(topic, key, schema, name, everywhere=True)

    def _table(self, topic: str, key: Columns, schema: str | None, name: str | None, **kind: Any) -> Table:
        checked_name(topic, "topic")
        unique = self._builder.unique(name or topic)
        node = nodes.TableSource(name=unique, key=key_of(key), topic=topic, schema=schema, **kind)
        self._builder.add(node)
        return Table(self._builder, node)

    @property
    def topology(self) -> Topology:
        """The description so far. Raises TopologyError when it does nothing."""
        if not any(isinstance(n, (nodes.Sink, nodes.Repartition)) for n in self._builder.nodes):
            raise TopologyError(f"processor {self.name!r} writes nothing: end a stream with .to(topic)")
        return Topology(self.name, self.version, tuple(self._builder.nodes))

    def _stream(self, make: Callable[..., Node], name: str, **fields: Any) -> Stream:
        return Stream(self._builder, self._builder.add(make(name=self._builder.unique(name), **fields)))
