"""Topics in memory: events become the bytes that a broker would keep, and are read back as events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from streampipe.errors import ConfigError
from streampipe.observe.values import ValueReader
from streampipe.records import Headers, ProduceBatch, Record, partition_of
from streampipe.schemas.catalog import SchemaCatalog
from streampipe.schemas.codec import AvroEncoder, parse_record
from streampipe.schemas.defaults import default_of
from streampipe.schemas.framing import MAX_SCHEMA_ID, header, unframe
from streampipe.schemas.keys import encode_keys
from streampipe.schemas.port import Registry
from streampipe.topology.nodes import Source, TableSource, Topology

Event = Mapping[str, Any] | bytes | None
"""An event by field; bytes go in as they are, framed or broken; None is a tombstone."""
Key = bytes | str | None
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Output:
    """A record that a processor wrote, its value decoded. `event` is None for a tombstone."""

    key: bytes | None
    event: dict[str, Any] | None
    timestamp: datetime
    partition: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


def ms_of(time: datetime) -> int:
    """Milliseconds since the epoch. Raises ConfigError for a time without zone."""
    if time.tzinfo is None:
        raise ConfigError(f"{time} has no time zone; give it one, as in datetime(..., tzinfo=UTC)")
    return (time - _EPOCH) // _MS


def renumbered(records: Sequence[Record], ids: Mapping[int, int]) -> ProduceBatch:
    """Records of one topic with the schema ids of this registry; ids that nobody knew are unknown here as well."""
    values: list[bytes | None] = [record.value for record in records]
    for group in unframe(values).groups:
        head = header(ids.get(group.schema_id, MAX_SCHEMA_ID))
        rows = range(len(values)) if group.rows is None else group.rows.tolist()
        for row, body in zip(rows, group.bodies, strict=True):
            values[row] = head + body
    return ProduceBatch(
        records[0].topic, [r.key for r in records], values, [r.timestamp for r in records],
        [r.partition for r in records], [r.headers for r in records],
    )  # fmt: skip


class Topics:
    """All that was written, by topic, each with the same number of partitions."""

    def __init__(self, topology: Topology, registry: Registry, folder: str, partitions: int) -> None:
        self.logs: dict[str, list[Record]] = defaultdict(list)
        self._catalog = SchemaCatalog(registry, folder)
        self._partitions = partitions
        self._registry, self._values = registry, ValueReader(registry)
        self._sources: dict[str, Source | TableSource] = {n.topic: n for n in topology.of(TableSource, Source)}
        self._encoders: dict[str, tuple[AvroEncoder, dict[str, Any]]] = {}
        self._read: dict[str, int] = defaultdict(int)

    def write(self, batch: ProduceBatch) -> list[Record]:
        """Append; what is in no given partition goes to that of its key. Returns the records as they are kept."""
        log = self.logs[batch.topic]
        ends = [0] * self._partitions
        for record in log:
            ends[record.partition] = record.offset + 1
        written = []
        for row in range(len(batch)):
            key = batch.keys[row]
            home = batch.partitions[row] if batch.partitions is not None else partition_of(key or b"", self._partitions)
            stamp = batch.timestamps[row] if batch.timestamps is not None else 0
            headers = batch.headers[row] if batch.headers is not None else ()
            written.append(Record(batch.topic, home, ends[home], stamp, key, batch.values[row], tuple(headers)))
            ends[home] += 1
        log += written
        return written

    def encoded(self, topic: str, events: Sequence[Event], key: Key, timestamp: int, headers: Headers) -> ProduceBatch:
        """Input events as they would be produced. Raises ConfigError for one that is not of the topic's schema."""
        named = [event for event in events if isinstance(event, Mapping)]
        columns = self._columns(topic, named) if named else None
        made = iter(self._framed(topic, columns) if columns is not None else ())
        values = [next(made) if isinstance(event, Mapping) else event for event in events]
        keys = iter(self._keys(topic, columns))
        given = key.encode() if isinstance(key, str) else key
        of_rows = [next(keys, None) if given is None and isinstance(event, Mapping) else given for event in events]
        count = len(events)
        return ProduceBatch(topic, of_rows, values, [timestamp] * count, None, [headers] * count)

    def _keys(self, topic: str, columns: pa.RecordBatch | None) -> list[bytes | None]:
        """Keys made of the columns that the source says the key is made of."""
        source = self._sources.get(topic)
        if columns is None or source is None or not source.key:
            return []
        return encode_keys([pl.Series(pl.from_arrow(columns.column(name))) for name in source.key])

    def _columns(self, topic: str, events: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        encoder, defaults = self._encoder(topic)
        names = encoder.arrow.names
        for event in events:
            for name in event.keys() - set(names):
                raise ConfigError(f"topic {topic!r} has no field {name!r}; it has {', '.join(names)}")
        try:
            return pa.RecordBatch.from_pylist([defaults | dict(event) for event in events], schema=encoder.arrow)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError) as error:
            raise ConfigError(f"an event is not of the schema of topic {topic!r}: {error}") from None

    def _framed(self, topic: str, columns: pa.RecordBatch) -> list[bytes]:
        encoded = self._encoder(topic)[0].encode(columns)
        if encoded.failures:
            first = encoded.failures[0]
            raise ConfigError(f"event {first.row + 1} is not of the schema of topic {topic!r}: {first.message}")
        return encoded.values

    def _encoder(self, topic: str) -> tuple[AvroEncoder, dict[str, Any]]:
        if topic not in self._encoders:
            source = self._sources.get(topic)
            text = self._catalog.for_topic(topic, source.schema if source is not None else None)
            fields = parse_record(text, f"topic {topic!r}").fields
            defaults = {field.name: default_of(field) for field in fields if field.has_default}
            self._encoders[topic] = AvroEncoder(text, self._catalog.register(topic, text)), defaults
        return self._encoders[topic]

    def registered(self, texts: Mapping[int, str]) -> dict[int, int]:
        """Schema ids here by those elsewhere."""
        return {old: self._registry.register(f"captured-{old}", text) for old, text in texts.items()}

    def read(self, topic: str) -> list[Record]:
        """What came since the last call."""
        start, self._read[topic] = self._read[topic], len(self.logs[topic])
        return self.logs[topic][start:]

    def decoded(self, records: Sequence[Record]) -> list[Output]:
        """Records as outputs. Raises ConfigError for a value that cannot be decoded."""
        outputs = []
        for record, value in zip(records, self._values.read([r.value for r in records]), strict=True):
            if value.problem is not None:
                raise ConfigError(f"{record.topic}[{record.partition}] offset {record.offset}: {value.problem}")
            at = _EPOCH + record.timestamp * _MS
            outputs.append(Output(record.key, value.event, at, record.partition, tuple(record.headers)))
        return outputs
