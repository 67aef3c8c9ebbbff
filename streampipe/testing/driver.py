"""A processor without broker, registry, threads or waiting: the task that a worker runs, with topics in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np

from streampipe.errors import ConfigError, NotFound
from streampipe.observe.dead_letters import DeadLetter, letters_of
from streampipe.observe.slices import read_slice
from streampipe.observe.state import entries_of
from streampipe.operators.tables.table import GLOBAL
from streampipe.processor import Processor
from streampipe.records import Headers, ProduceBatch, Record, TopicPartition, batch_of
from streampipe.runtime.idle import silence_of
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.port import TaskOutput
from streampipe.runtime.task import TopologyTask
from streampipe.runtime.topics import external_inputs, needed_topics
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.testing.topics import Event, Key, Output, Topics, ms_of, renumbered
from streampipe.windows import Duration, milliseconds


class TopologyTestDriver:
    """Runs one processor in memory, a commit after each `send`. Named for the class of Kafka Streams that does this.

    `schemas`: the folder of .avsc files. `partitions`: of every topic. `now`: what the wall clock shows until
    `advance` moves it; nothing else does. Raises TopologyError, ConfigError and UnknownSubject as a worker would.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        schemas: str = "schemas",
        partitions: int = 1,
        now: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    ) -> None:
        registry = LocalRegistry(":memory:")
        self._close = closing(registry)
        self._topology = processor.topology
        self._build = TaskBuilder(self._topology, registry, schemas, sleep=self._sleep).build
        self._topics = Topics(self._topology, registry, schemas, partitions)
        self._partitions = range(partitions)
        self._now_ms = ms_of(now)
        self.warnings: list[str] = []
        """What a worker would log: bad records of global tables."""
        self._task = self._started()
        self._heard_ms = dict.fromkeys(self._homes(self._task), self._now_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the registry."""
        self._close.__exit__(None, None, None)

    @property
    def now(self) -> datetime:
        """What the wall clock shows."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self._now_ms)

    def send(
        self, topic: str, *events: Event, key: Key = None, timestamp: datetime | None = None, headers: Headers = ()
    ) -> None:
        """Let the processor consume these events in one batch, and all that comes of them.

        An event is a mapping of fields (those with a default may be missing); bytes go in as they are; None is a
        tombstone. `key` is by default made of the columns that the source or table names as its key, `timestamp` is
        `now`. Raises NotFound for a topic that the processor does not read, ConfigError for an event that is not of
        its schema, and what a worker stops with.
        """
        inputs = self._inputs(self._task)
        if topic not in inputs:
            raise NotFound(
                f"processor {self._topology.app_id!r} reads no topic {topic!r}; it reads {', '.join(inputs)}"
            )
        at = self._now_ms if timestamp is None else ms_of(timestamp)
        self._consume(self._topics.write(self._topics.encoded(topic, events, key, at, headers)))

    def play(self, path: str | Path) -> int:
        """Let the processor consume what `streampipe capture` kept, byte for byte; returns how many records.

        Tables come first, as a worker reads them to their end before anything is joined; else the file's order counts.
        Records keep their partitions; those of topics that the processor does not read are left out. Raises
        ConfigError for a file that is none, and for more partitions than there are.
        """
        inputs, kept = self._inputs(self._task), read_slice(Path(path))
        streams = {topic for sub in self._task.subtopologies for topic in sub.streams}
        records = sorted((r for r in kept.records if r.topic in inputs), key=lambda record: record.topic in streams)
        for record in records:
            if record.partition not in self._partitions:
                raise ConfigError(
                    f"{path} has records of {record.topic}[{record.partition}]; give the driver partitions="
                    f"{max(r.partition for r in records) + 1} or more"
                )
        ids = self._topics.registered(kept.schemas)
        for _, run in groupby(records, key=lambda record: record.topic):
            self._consume(self._topics.write(renumbered(list(run), ids)))
        return len(records)

    def read(self, topic: str) -> list[Output]:
        """Records written to a topic since the last `read` of it, decoded.

        Raises NotFound for a topic that the processor neither writes nor reads.
        """
        inputs = dict.fromkeys(external_inputs(self._topology), len(self._partitions))
        topics = sorted({*inputs, *(needed.name for needed in needed_topics(self._topology, inputs))})
        if topic not in topics:
            raise NotFound(f"processor {self._topology.app_id!r} has no topic {topic!r}; it has {', '.join(topics)}")
        return self._topics.decoded(self._topics.read(topic))

    def events(self, topic: str) -> list[dict[str, Any] | None]:
        """As `read`, the events alone."""
        return [output.event for output in self.read(topic)]

    def dead_letters(self) -> list[DeadLetter]:
        """Dead letters since the last call."""
        letters = self._topics.read(self._topology.dead_letter_topic)
        return list(letters_of(batch_of(letters))) if letters else []

    def advance(self, by: Duration) -> None:
        """Let the wall clock go on in silence, as `idle_after` of windows is about."""
        self._now_ms += milliseconds(by)
        silent_s = {tp: (self._now_ms - heard) / 1000 for tp, heard in self._heard_ms.items()}
        for part in self._task.subtopologies:
            self._task.advance(self._now_ms, silence_of(part, silent_s), part)
        self._commit()

    def close_windows(self) -> None:
        """Close all open windows, as `--close-windows` does at the end of a finished input."""
        while self._task.close_windows():
            self._commit()
        self._commit()

    def restart(self) -> None:
        """Kill the worker and start another one: state comes back from what was committed, or it is lost."""
        self._task = self._started()

    def state(self, store: str) -> list[dict[str, Any]]:
        """What a store holds: for each entry `partition`, `key`, `timestamp` in ms and `columns`. Raises NotFound."""
        task = self._started()
        if store not in task.stores:
            raise NotFound(f"there is no store {store!r}; there are: {', '.join(task.stores) or 'none'}")
        shared = task.stores[store].changelog in task.global_tables
        return [
            entry for p in ([GLOBAL] if shared else self._partitions) for frame in task.look(store, p)
            for entry in entries_of(frame, task.stores[store].json_columns)
        ]  # fmt: skip

    # -- the worker's part ---------------------------------------------------------------------------------------

    def _started(self) -> TopologyTask:
        """A task with all partitions and the state that was committed."""
        task = self._build()
        for restore in task.assign(self._homes(task)):
            if found := [r for r in self._topics.logs[restore.source.topic] if r.partition == restore.source.partition]:
                task.restore(restore, batch_of(found))
        for topic in task.global_tables:
            if self._topics.logs[topic]:
                task.load(batch_of(self._topics.logs[topic]))
        return task

    def _homes(self, task: TopologyTask) -> list[TopicPartition]:
        return [TopicPartition(t, p) for s in task.subtopologies for t in s.inputs for p in self._partitions]

    @staticmethod
    def _inputs(task: TopologyTask) -> list[str]:
        return sorted({t for s in task.subtopologies for t in s.inputs} | set(task.global_tables))

    def _consume(self, records: list[Record]) -> None:
        batch = batch_of(records)
        if batch.topic in self._task.global_tables:
            self.warnings += self._task.load(batch)
        if any(batch.topic in s.inputs for s in self._task.subtopologies):
            heard = [TopicPartition(batch.topic, p) for p in np.unique(batch.partitions).tolist()]
            self._heard_ms |= dict.fromkeys(heard, self._now_ms)
            self._task.process([batch], self._now_ms)
            self._commit()

    def _commit(self) -> None:
        output = self._task.drain()
        own = set(self._inputs(self._task))
        for batch in _batches(output):
            written = self._topics.write(batch)
            if batch.topic in own:
                self._consume(written)

    def _sleep(self, seconds: float) -> None:
        self._now_ms += round(seconds * 1000)


def _batches(output: TaskOutput) -> Iterator[ProduceBatch]:
    for batches in (output.changelog, output.dead_letters, output.records):
        yield from (batch for batch in batches if len(batch))
