"""Runs a processor's task on records given as Python events, and reads back what it gave as Python values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from streampipe import Processor
from streampipe.records import ProduceBatch, Record, TopicPartition, batch_of
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.port import OUTCOMES, TaskOutput
from streampipe.runtime.task import TopologyTask
from streampipe.schemas.codec import AvroDecoder, AvroEncoder
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.state.kept import Mark
from streampipe.state.port import Stores


class Event(NamedTuple):
    """An input record. A value of bytes goes in as it is; a dict is encoded."""

    topic: str
    key: str | None
    value: dict[str, Any] | bytes | None
    timestamp: int
    partition: int = 0


@dataclass
class Result:
    """Everything a run gave. `records[topic]` are (key, event, timestamp) in order."""

    records: dict[str, list[tuple[bytes | None, Any, int]]] = field(default_factory=lambda: defaultdict(list))
    dead: list[tuple[bytes | None, bytes | None, dict[str, str]]] = field(default_factory=list)
    changelog: dict[tuple[str, int], dict[bytes, bytes]] = field(default_factory=lambda: defaultdict(dict))
    outcomes: Counter[str] = field(default_factory=Counter)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    invalid_drops: Counter[str] = field(default_factory=Counter)
    late_drops: Counter[str] = field(default_factory=Counter)

    def by_key(self, topic: str) -> dict[bytes | None, list[Any]]:
        """Events of a topic by key, in order."""
        out: dict[bytes | None, list[Any]] = defaultdict(list)
        for key, event, _ in self.records[topic]:
            out[key].append(event)
        return dict(out)


@cache
def _registry(folder: Path) -> LocalRegistry:
    """One registry a folder: opening the file costs more than most examples do."""
    return LocalRegistry(str(folder / "registry.db"))


class _Encoder:
    """Bytes of the events of one topic; laws send the same ones thousands of times."""

    MOST = 20_000

    def __init__(self, folder: Path, topic: str, schema: str) -> None:
        self._avro = AvroEncoder(schema, _registry(folder).register(f"{topic}-value", schema))
        self._known: dict[str, bytes] = {}

    def encode(self, events: Sequence[dict[str, Any]]) -> list[bytes]:
        """The events of this topic in Confluent's wire format."""
        names = [repr(event) for event in events]
        fresh = {name: event for name, event in zip(names, events, strict=True) if name not in self._known}
        if fresh:
            encoded = self._avro.encode(pa.RecordBatch.from_pylist([*fresh.values()], schema=self._avro.arrow))
            assert not encoded.failures, encoded.failures
            if len(self._known) > self.MOST:
                self._known = {name: self._known[name] for name in names if name not in fresh}
            self._known.update(zip(fresh, encoded.values, strict=True))
        return [self._known[name] for name in names]


_encoder = cache(_Encoder)


class Driver:
    """One task, fed in batches of any size, its repartition topics looped back."""

    def __init__(
        self, processor: Processor, schemas: dict[str, str], folder: Path, stores: Stores | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for topic, text in schemas.items():
            (folder / f"{topic}.avsc").write_text(text)
        self.registry = _registry(folder)
        self._encoders = {topic: _encoder(folder, topic, text) for topic, text in schemas.items()}
        self.builder = TaskBuilder(processor.topology, self.registry, str(folder), sleep=lambda _: None, stores=stores)
        self.offsets: Counter[TopicPartition] = Counter()
        self.result = Result()
        self.task = self.start()

    def start(self, *, kept: bool = False) -> TopologyTask:
        """A fresh task with four partitions of every input, state as it was kept or restored from the changelogs."""
        task = self.builder.build()
        for restore in task.assign(self._partitions(task)):
            entries = self.result.changelog.get((restore.source.topic, restore.source.partition), {})
            if kept and restore.mark is not None:
                continue
            task.forget_kept(restore)
            if entries:
                task.restore(restore, batch_of([Record(*restore.source, 0, 0, k, v) for k, v in entries.items()]))
        self.task = task
        return task

    def hand_over(self) -> TopologyTask:
        """A fresh task after the state of this one, which has been drained, was kept."""
        partitions = self._partitions(self.task)
        for what in self.task.kept(partitions):
            self.task.keep(what, Mark("changelog", 0, 0))
        self.task.revoke(partitions)
        return self.start(kept=True)

    def _partitions(self, task: TopologyTask) -> list[TopicPartition]:
        return [TopicPartition(t, p) for s in task.subtopologies for t in (*s.streams, *s.tables) for p in range(4)]

    def encode(self, events: Sequence[Event]) -> list[Record]:
        """Events as consumed records."""
        values: list[Any] = [e.value for e in events]
        for topic, encoder in self._encoders.items():
            rows = [i for i, e in enumerate(events) if e.topic == topic and isinstance(e.value, dict)]
            for i, value in zip(rows, encoder.encode([values[i] for i in rows]), strict=True):
                values[i] = value
        return [self._record(e, v) for e, v in zip(events, values, strict=True)]

    def _record(self, event: Event, value: bytes | None) -> Record:
        at = TopicPartition(event.topic, event.partition)
        self.offsets[at] += 1
        key = None if event.key is None else event.key.encode()
        return Record(event.topic, event.partition, self.offsets[at] - 1, event.timestamp, key, value)

    def feed(self, events: Iterable[Event], size: int | None = None, now_ms: int | None = None) -> Driver:
        """Process events in batches of at most `size` records (None: as large as runs of one topic allow)."""
        for batch in runs(self.encode(list(events)), size):
            self.task.process([batch_of(batch)], now_ms)
            self.collect(self.task.take())
        return self

    def finish(self, *, close_windows: bool = False) -> Result:
        """Drain, and return what there is."""
        if close_windows:
            self.task.close_windows()
        self.collect(self.task.drain())
        return self.result

    def collect(self, out: TaskOutput) -> None:
        """Keep an output; feed repartition topics back."""
        result = self.result
        for batch in out.changelog:
            assert batch.partitions is not None
            for key, value, partition in zip(batch.keys, batch.values, batch.partitions, strict=True):
                log = result.changelog[batch.topic, partition]
                assert key is not None
                log.pop(key, None)
                if value is not None:
                    log[key] = value
        for batch in out.dead_letters:
            headers = batch.headers or [()] * len(batch)
            for key, value, extra in zip(batch.keys, batch.values, headers, strict=True):
                prefix = "__streampipe.errors."
                told = {k.removeprefix(prefix): (v or b"").decode() for k, v in extra if k.startswith(prefix)}
                result.dead.append((key, value, told))
        for counts in out.outcomes.values():
            result.outcomes.update(dict(zip(OUTCOMES, counts.tolist(), strict=True)))
        result.offsets.update(out.offsets)
        result.invalid_drops.update(out.invalid_drops)
        result.late_drops.update(out.late_drops)
        for batch in out.records:
            if batch.topic.endswith("-repartition"):
                self._loop_back(batch)
            else:
                result.records[batch.topic] += self.decode(batch)

    def _loop_back(self, batch: ProduceBatch) -> None:
        self.feed(
            Event(batch.topic, None if k is None else k.decode(), v, t, (k or b"?")[0] % 4)
            for k, v, t in zip(batch.keys, batch.values, batch.timestamps or (), strict=True)
        )

    def decode(self, batch: ProduceBatch) -> list[tuple[bytes | None, Any, int]]:
        """Produced records as (key, event, timestamp)."""
        text = self.registry.latest(f"{batch.topic}-value").text
        events = AvroDecoder(self.registry, text).decode(list(batch.values)).columns.to_pylist()
        assert batch.timestamps is not None
        return list(zip(batch.keys, events, batch.timestamps, strict=True))


def runs(records: Sequence[Record], size: int | None) -> Iterable[list[Record]]:
    """Cut records into batches of one topic and at most `size`, in order."""
    batch: list[Record] = []
    for record in records:
        if batch and (record.topic != batch[0].topic or len(batch) == size):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch
