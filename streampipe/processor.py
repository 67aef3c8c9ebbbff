"""What a processor module begins with: `Processor`, its sources and its tables.

Calling these methods only describes; nothing runs and nothing is read until a worker takes the description.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streampipe.errors import TopologyError
from streampipe.streams import Stream, Table
from streampipe.topology import nodes
from streampipe.topology.builder import Builder, Columns, checked_name, key_of
from streampipe.topology.nodes import Node, Topology


class Processor:
    """One processor: its name is its consumer group and the prefix of its internal topics.

    `version` counts up when the shape of its state changes. Raises TopologyError for a name that is no topic name.
    """

    def __init__(self, name: str, *, version: int = 1) -> None:
        self.name = checked_name(name, "processor")
        self.version = version
        self._builder = Builder(name)

    def source(
        self,
        topic: str,
        *,
        event_time: str | None = None,
        key: Columns | None = None,
        schema: str | None = None,
        name: str | None = None,
    ) -> Stream:
        """Records of a topic, as columns of its reader schema.

        `event_time`: the column (a timestamp, a date or integer milliseconds) that replaces the record's timestamp.
        `key`: declares which columns the record key is made of, so that no repartition is needed for them.
        `schema`: path of an .avsc file or schema text; by default <schemas folder>/<topic>.avsc, else the latest
        one that the registry has for <topic>-value.
        """
        checked_name(topic, "topic")
        return self._stream(
            nodes.Source, name or topic, key=key_of(key), topic=topic, event_time=event_time, schema=schema
        )

    def table(self, topic: str, *, key: Columns, schema: str | None = None, name: str | None = None) -> Table:
        """The latest value by key of a topic, co-partitioned with the streams that join it on the same key."""
        return self._table(topic, key, schema, name, everywhere=False)

    def global_table(self, topic: str, *, key: Columns, schema: str | None = None, name: str | None = None) -> Table:
        """The latest value by key of a topic, whole on every worker: for small tables, joined on any columns."""
        return self._table(topic, key, schema, name, everywhere=True)

    def _table(self, topic: str, key: Columns, schema: str | None, name: str | None, *, everywhere: bool) -> Table:
        checked_name(topic, "topic")
        unique = self._builder.unique(name or topic)
        node = nodes.TableSource(name=unique, key=key_of(key), topic=topic, everywhere=everywhere, schema=schema)
        self._builder.add(node)
        return Table(node)

    @property
    def topology(self) -> Topology:
        """The description so far. Raises TopologyError when it does nothing."""
        if not any(isinstance(n, (nodes.Sink, nodes.Repartition)) for n in self._builder.nodes):
            raise TopologyError(f"processor {self.name!r} writes nothing: end a stream with .to(topic)")
        return Topology(self.name, self.version, tuple(self._builder.nodes))

    def _stream(self, make: Callable[..., Node], name: str, **fields: Any) -> Stream:
        return Stream(self._builder, self._builder.add(make(name=self._builder.unique(name), **fields)))
