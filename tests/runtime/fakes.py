"""A small deterministic task, and what the tests of a worker ask of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from streampipe.brokers.port import Broker
from streampipe.config import Settings
from streampipe.errors import Unavailable
from streampipe.records import IntArray, ProduceBatch, Record, RecordBatch, TopicPartition, records_of
from streampipe.runtime.observer import NullObserver
from streampipe.runtime.port import OUTCOMES, Restore, State, SubTopology, TaskOutput
from streampipe.runtime.worker import Worker
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore

PARTITIONS = 3


@dataclass(frozen=True)
class Names:
    """Topics of one test."""

    app: str
    repartitioned: bool = False

    @property
    def input(self) -> str:
        return f"{self.app}.in"

    @property
    def out(self) -> str:
        return f"{self.app}.out"

    @property
    def repartition(self) -> str:
        return f"{self.app}-count-repartition"

    @property
    def changelog(self) -> str:
        return f"{self.app}-count-changelog"

    @property
    def dlq(self) -> str:
        return f"{self.app}-dlq"

    @property
    def table(self) -> str:
        return f"{self.app}.table"

    @property
    def everywhere(self) -> str:
        return f"{self.app}.global"

    def create(self, broker: Broker) -> None:
        admin = broker.admin()
        for topic in (self.input, self.out, self.repartition, self.changelog, self.dlq, self.table, self.everywhere):
            admin.create_topic(topic, PARTITIONS)
        admin.close()


@dataclass
class Log:
    """What all tasks of a test did."""

    tasks: int = 0
    processed: list[tuple[str, int, int]] = field(default_factory=list)
    restored: list[tuple[int, int]] = field(default_factory=list)
    revoked: list[TopicPartition] = field(default_factory=list)
    advanced: list[set[int]] = field(default_factory=list)
    loaded: list[bytes | None] = field(default_factory=list)
    told_times: list[int | None] = field(default_factory=list)
    closed: int = 0


class CountingTask:
    """Echoes every record to `out`, counts per key into a changelog; values starting with bad are dead letters.

    The count of a key goes to `out` too, keyed `count:<key>`, one record a processed record, so that anything
    counted twice or not at all shows. With `names.repartitioned` the counting happens behind a repartition topic.
    """

    idle_after_s = 30.0
    replicated: Mapping[str, tuple[str, Collection[str]]] = {}

    def __init__(self, names: Names, log: Log | None = None, tables: bool = False, global_tables: bool = False) -> None:
        self.names, self.log = names, log or Log()
        self.log.tasks += 1
        table = (names.table,) if tables else ()
        behind = [SubTopology((names.repartition,), ())] if names.repartitioned else []
        self.subtopologies: Sequence[SubTopology] = [SubTopology((names.input,), table), *behind]
        self.global_tables: Collection[str] = (names.everywhere,) if global_tables else ()
        self.counts: dict[int, Counter[bytes]] = {}
        self._dirty: set[tuple[int, bytes]] = set()
        self._output = TaskOutput()
        self._owned: set[TopicPartition] = set()

    def assign(self, partitions: Collection[TopicPartition]) -> list[Restore]:
        restores = []
        self._owned |= set(partitions)
        for topic, number in partitions:
            if topic == (self.names.repartition if self.names.repartitioned else self.names.input):
                self.counts[number] = Counter()
                restores.append(Restore("count", number, TopicPartition(self.names.changelog, number), "end"))
            elif topic == self.names.table:
                restores.append(Restore("table", number, TopicPartition(topic, number), "committed"))
        return restores

    def restore(self, what: Restore, batch: RecordBatch) -> None:
        for record in records_of(batch):
            assert record.partition == what.partition
            self.log.restored.append((what.partition, record.offset))
            if what.store == "count":
                self.counts[what.partition][record.key or b""] = int(record.value or b"0")

    def restored(self, what: Restore) -> None:
        """Its counts are what they are."""

    def replica(self, store: str, partition: int) -> StateStore:
        raise AssertionError(f"there are no copies of {store}[{partition}]")

    def lend(self, store: str, partition: int, replica: StateStore, mark: Mark) -> None:
        raise AssertionError(f"there are no copies of {store}[{partition}]: {replica} {mark}")

    def forget_kept(self, what: Restore) -> None:
        """It never came with anything."""

    def kept(self, partitions: Collection[TopicPartition]) -> list[Restore]:
        return []

    def keep(self, what: Restore, mark: Mark) -> None:
        raise AssertionError(f"it keeps nothing: {what} {mark}")

    def revoke(self, partitions: Collection[TopicPartition]) -> None:
        self.log.revoked.extend(partitions)
        self._owned -= set(partitions)
        for topic, number in partitions:
            if topic == (self.names.repartition if self.names.repartitioned else self.names.input):
                del self.counts[number]

    def load(self, batch: RecordBatch) -> list[str]:
        self.log.loaded.extend(batch.values)
        return [f"{batch.topic}: {value!r}" for value in batch.values if value == b"bad"]

    def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
        self.log.told_times.append(now_ms)
        for batch in batches:
            self._batch(batch)

    def times(self, batch: RecordBatch, now_ms: int | None = None) -> IntArray:
        return batch.timestamps

    def _batch(self, batch: RecordBatch) -> None:
        fates = []
        for record in records_of(batch):
            assert TopicPartition(record.topic, record.partition) in self._owned
            self.log.processed.append((record.topic, record.partition, record.offset))
            fates.append(self._one(record))
            self._output.offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._output.count(batch.topic, np.array([OUTCOMES.index(fate) for fate in fates]))

    def _one(self, record: Record) -> str:
        key, value = record.key or b"", record.value or b""
        if record.topic == self.names.table:
            return "ok"
        if value.startswith(b"bad"):
            self._output.dead_letters.append(ProduceBatch(self.names.dlq, [key], [value], [record.timestamp]))
            self._output.failures[record.topic, "fake", "validation"] += 1
            return "dlq"
        if record.topic == self.names.input:
            self._output.records.append(ProduceBatch(self.names.out, [key], [value], [record.timestamp]))
            if self.names.repartitioned:
                self._output.records.append(ProduceBatch(self.names.repartition, [key], [value], [record.timestamp]))
                return "ok"
        counts = self.counts[record.partition]
        counts[key] += 1
        self._dirty.add((record.partition, key))
        self._output.records.append(ProduceBatch(self.names.out, [b"count:" + key], [b"%d" % counts[key]]))
        return "ok"

    def advance(self, now_ms: int, silent_s: Mapping[int, float], of: SubTopology | None = None) -> None:
        assert of in self.subtopologies
        assert all(silence_s >= self.idle_after_s for silence_s in silent_s.values())
        self.log.advanced.append(set(silent_s))

    def take(self) -> TaskOutput:
        output, self._output = self._output, TaskOutput()
        return output

    def drain(self) -> TaskOutput:
        output = self.take()
        for number, key in sorted(self._dirty):
            value = b"%d" % self.counts[number][key]
            output.changelog.append(ProduceBatch(self.names.changelog, [key], [value], partitions=[number]))
        self._dirty.clear()
        return output

    def close_windows(self) -> bool:
        self.log.closed += 1
        self._output.records.append(ProduceBatch(self.names.out, [b"closed"], [b"closed"]))
        return False


class Watcher(NullObserver):
    """Keeps what a worker told."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.commits: list[str] = []
        self.outputs: list[TaskOutput] = []
        self.latencies: dict[str, list[float]] = {}
        self.moves: list[str] = []
        self.reachable: list[bool] = []
        self.produced_counts: Counter[str] = Counter()
        self.restores: list[tuple[str, int, int]] = []
        self.standing: list[tuple[int, int]] = []
        self.oldest: list[dict[TopicPartition, int | None]] = []

    def state(self, state: State) -> None:
        self.states.append(state)

    def committed(self, result, seconds, output, latencies_s):  # type: ignore[no-untyped-def] # as the protocol
        self.commits.append(result)
        if output is not None:
            self.outputs.append(output)
        for topic, column in (latencies_s or {}).items():
            self.latencies.setdefault(topic, []).extend(column.tolist())

    def produced(self, topic: str, records: int) -> None:
        self.produced_counts[topic] += records

    def rebalanced(self, kind, partitions, seconds):  # type: ignore[no-untyped-def] # as the protocol
        self.moves.append(kind)

    def restoring(self, store: str, restored: int, remaining: int, seconds: float) -> None:
        self.restores.append((store, restored, remaining))

    def standing_by(self, partitions: int, behind: int) -> None:
        self.standing.append((partitions, behind))

    def broker_reachable(self, reachable: bool) -> None:
        self.reachable.append(reachable)

    def oldest_unprocessed(self, timestamps: dict[TopicPartition, int | None]) -> None:
        self.oldest.append(timestamps)


def settings(**changes: object) -> Settings:
    return Settings(**{"commit_interval_ms": 50, "max_poll_wait_ms": 20, **changes})  # type: ignore[arg-type]


def fill(broker: Broker, topic: str, rows: Mapping[bytes, Collection[bytes]], timestamp: int = 1000) -> None:
    """Produce these values by key, in turns, committed."""
    producer = broker.producer()
    pairs = [(key, value) for key, values in rows.items() for value in values]
    if pairs:
        keys, values = zip(*pairs, strict=True)
        producer.produce(ProduceBatch(topic, keys, values, [timestamp] * len(pairs)))
    producer.flush()
    producer.close()


def numbered(keys: int, each: int, start: int = 0) -> dict[bytes, list[bytes]]:
    return {b"k%d" % k: [b"%d" % n for n in range(start, start + each)] for k in range(keys)}


def read(broker: Broker, topic: str) -> list[Record]:
    """Everything committed in a topic."""
    admin = broker.admin()
    partitions = [TopicPartition(topic, n) for n in range(admin.describe_topic(topic).partitions)]
    ends = admin.offsets(partitions, "latest", "read_uncommitted")
    reader = broker.reader(admin.offsets(partitions, "earliest"))
    admin.close()
    found: list[Record] = []

    def at_the_end() -> bool:
        found.extend(r for b in reader.poll(10_000, 0.2) for r in records_of(b))
        return all(reader.position(tp) >= end for tp, end in ends.items())

    await_true(at_the_end, 30)
    reader.close()
    return found


def oracle(rows: Mapping[bytes, Collection[bytes]]) -> Counter[tuple[bytes, bytes]]:
    """What `out` holds when each record was processed exactly once."""
    expected: Counter[tuple[bytes, bytes]] = Counter()
    for key, values in rows.items():
        good = [value for value in values if not value.startswith(b"bad")]
        expected.update((key, value) for value in good)
        expected.update((b"count:" + key, b"%d" % n) for n in range(1, len(good) + 1))
    return expected


def results(broker: Broker, names: Names) -> Counter[tuple[bytes, bytes]]:
    return Counter((r.key or b"", r.value or b"") for r in read(broker, names.out) if r.key != b"closed")


def await_true(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextmanager
def running(worker: Worker) -> Iterator[threading.Thread]:
    """The worker in a thread; stopped at the end, its error raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - raised by the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def committed(broker: Broker, group: str) -> dict[TopicPartition, int]:
    admin = broker.admin()
    try:
        return admin.committed(group)
    finally:
        admin.close()


class Flaky(CountingTask):
    """Cannot process while `down` is set."""

    def __init__(self, names: Names, log: Log, down: threading.Event) -> None:
        super().__init__(names, log)
        self._down = down

    def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
        if self._down.is_set():
            raise Unavailable("registry is down; start it")
        super().process(batches)
