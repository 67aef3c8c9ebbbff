"""State of a processor as of its last commit, read from the topics that it would be restored from."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from streampipe.brokers.port import Admin, Broker
from streampipe.errors import ConfigError, NotFound, UnknownTopic
from streampipe.observe.reading import read_between
from streampipe.operators.frame import Frame, Mask
from streampipe.operators.tables.table import GLOBAL, TableStep
from streampipe.records import RecordBatch, TopicPartition
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.port import Restore
from streampipe.runtime.task import TopologyTask
from streampipe.schemas.port import RegisteredSchema, Registry
from streampipe.topology.nodes import Topology, WindowedAggregate
from streampipe.windows import Session, Sliding

CHUNK = 20_000
Progress = Callable[[int, int], None]
"""Told how many offsets of how many have been read."""


@dataclass(frozen=True, slots=True)
class Store:
    """A store by its name, the topic it can be rebuilt from, and how many offsets that topic spans (None: no topic)."""

    name: str
    kind: str
    topic: str
    partitions: int | None
    records: int | None


class _Unwritten:
    """A registry in which nothing is registered by somebody who only looks."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self.name = registry, registry.name

    def by_id(self, schema_id: int) -> str:
        return self._registry.by_id(schema_id)

    def latest(self, subject: str) -> RegisteredSchema:
        return self._registry.latest(subject)

    def version(self, subject: str, version: int) -> RegisteredSchema:
        return self._registry.version(subject, version)

    def register(self, subject: str, text: str) -> int:  # noqa: ARG002 - nothing is encoded by this id
        return 0

    def incompatibilities(self, subject: str, text: str) -> list[str]:
        return self._registry.incompatibilities(subject, text)

    def subjects(self) -> list[str]:
        return self._registry.subjects()

    def close(self) -> None:
        """The registry belongs to somebody else."""


class StateReader:
    """Looks into the stores of a processor, whether its workers run or not, without joining its group.

    What it sees is what a worker would restore: all that was committed, nothing that was not. Raises what building a
    task does, and Unavailable.
    """

    def __init__(self, topology: Topology, broker: Broker, registry: Registry, folder: str) -> None:
        self._topology, self._broker = topology, broker
        self._kinds = {node.name: node.kind for node in topology.nodes}
        self._build = TaskBuilder(topology, _Unwritten(registry), folder, sleep=time.sleep).build

    def stores(self, admin: Admin) -> list[Store]:
        """Every store of the processor."""
        counts = admin.topics()
        return [self._store(admin, name, step.changelog, counts) for name, step in self._build().stores.items()]

    def _store(self, admin: Admin, name: str, topic: str, counts: dict[str, int]) -> Store:
        partitions, records = counts.get(topic), None
        if partitions is not None:
            every = [TopicPartition(topic, p) for p in range(partitions)]
            first, last = admin.offsets(every, "earliest"), admin.offsets(every, "latest")
            records = sum(last[p] - first[p] for p in every)
        return Store(name, self._kinds[name], topic, partitions, records)

    def rows(
        self, admin: Admin, name: str, progress: Progress, window_ms: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """What a store holds: for each entry its partition, key, timestamp in ms and columns.

        `window_ms`: only windows that this time is in. Raises NotFound, and ConfigError for a store without windows.
        """
        task = self._build()
        step = task.stores.get(name)
        if step is None:
            known = ", ".join(task.stores) or "none"
            raise NotFound(f"processor {self._topology.app_id!r} has no store {name!r}; it has: {known}")
        covers = None if window_ms is None else self._covering(name, window_ms)
        topic = step.changelog
        count = admin.topics().get(topic)
        if count is None:
            raise (
                UnknownTopic(topic)
                if topic in self._inputs(task)
                else NotFound(
                    f"store {name!r} is empty: nothing has been committed to it, since topic {topic!r} does not exist"
                )
            )
        shared = isinstance(step, TableStep) and step.everywhere
        self._restore(admin, task, name, [TopicPartition(topic, p) for p in range(count)], shared, progress)
        for partition in [GLOBAL] if shared else range(count):
            for frame in task.look(name, partition):
                yield from entries_of(frame if covers is None else frame.filter(covers(frame)), step.json_columns)

    def _covering(self, name: str, time_ms: int) -> Callable[[Frame], Mask]:
        """Which rows are of windows that a time is in."""
        node = next(node for node in self._topology.nodes if node.name == name)
        if not isinstance(node, WindowedAggregate):
            raise ConfigError(f"store {name!r} has no windows")
        last_ms = time_ms if isinstance(node.window, Session | Sliding) else time_ms + 1  # is the end inside?

        def covers(frame: Frame) -> Mask:
            start, end = (frame.columns[c].arrow.cast(pa.int64()).to_numpy() for c in ("window_start", "window_end"))
            return np.asarray((start <= time_ms) & (last_ms <= end))

        return covers

    @staticmethod
    def _inputs(task: TopologyTask) -> set[str]:
        return {t for sub in task.subtopologies for t in (*sub.streams, *sub.tables)} | set(task.global_tables)

    def _restore(
        self, admin: Admin, task: TopologyTask, name: str, sources: list[TopicPartition], shared: bool,
        progress: Progress,
    ) -> None:  # fmt: skip
        restores = {r.source: r for r in task.assign(_assignable(task, len(sources))) if r.store == name}
        starts, ends = admin.offsets(sources, "earliest"), admin.offsets(sources, "latest")
        if any(r.upto == "committed" for r in restores.values()):
            committed = admin.committed(self._topology.app_id)
            ends = {p: max(starts[p], committed.get(p, 0)) for p in sources}
        total = sum(ends[p] - starts[p] for p in sources)
        done = dict(starts)
        for batch in read_between(self._broker, starts, ends, CHUNK):
            for partition in np.unique(batch.partitions).tolist():
                source = TopicPartition(batch.topic, partition)
                mine = batch.take(np.flatnonzero(batch.partitions == partition))
                self._feed(task, None if shared else restores[source], mine)
                done[source] = int(mine.offsets[-1]) + 1
            progress(sum(done[p] - starts[p] for p in sources), total)

    @staticmethod
    def _feed(task: TopologyTask, what: Restore | None, batch: RecordBatch) -> None:
        if what is None:
            task.load(batch)
        else:
            task.restore(what, batch)


def _assignable(task: TopologyTask, count: int) -> list[TopicPartition]:
    topics = {t for sub in task.subtopologies for t in (*sub.streams, *sub.tables)}
    return [TopicPartition(topic, p) for topic in sorted(topics) for p in range(count)]


def entries_of(frame: Frame, json_columns: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """What `TopologyTask.look` gives, entry by entry. `json_columns`: those of the step."""
    places = zip(frame.partitions.tolist(), frame.keys(), frame.timestamps.tolist(), strict=True)
    for (partition, key, timestamp), columns in zip(places, frame.arrow().to_pylist(), strict=True):
        columns |= {name: orjson.loads(columns[name]) for name in json_columns if columns.get(name) is not None}
        yield {"partition": partition, "key": key, "timestamp": timestamp, "columns": columns}
