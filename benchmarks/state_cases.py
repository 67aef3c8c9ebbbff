"""The cases of `benchmarks.state`, and how one of them is run in this process."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from streampipe import Hopping, Processor, Session, Sliding, Stream, Tumbling, ValueState, agg
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.task import TopologyTask
from streampipe.schemas.codec import AvroDecoder, AvroEncoder
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.state.rocksdb import RocksStores

PARTITIONS, BATCH = 4, 10_000
STEP_MS = 20
"""Event time from one record to the next."""
BEGIN_MS = 1_700_000_040_000
"""Time of the first record, at the beginning of a minute."""
SCHEMA = """{"type": "record", "name": "Event", "fields": [
  {"name": "k", "type": "string"}, {"name": "x", "type": "int"}]}"""


@dataclass(frozen=True, slots=True)
class Case:
    """A processor over `keys` keys. `adds_up_to`: what column `n` of its results must add up to, in input records."""

    title: str
    build: Callable[[Processor], None]
    keys: int = 10_000
    commit_every: int = 100_000
    adds_up_to: float | None = 1.0
    last_only: bool = False
    """Only the last result of each key counts."""
    memory: bool = False
    """Run it once more to see what memory the state takes, when nothing else is kept."""
    rocksdb: bool = False


@dataclass(slots=True)
class Figures:
    """CPU seconds per million records, records a second, and MiB that the state took."""

    title: str
    keys: int
    commit_every: int
    cpu: float
    rate: float
    state_mb: float | None
    changelog: int
    """Records of changelog."""
    restore_rate: float | None = None
    """Changelog records a second of a restore."""
    wrong: str = ""
    checked: bool = True
    """Whether the results were added up; else all that is known is that there are some."""


def _events(p: Processor) -> Stream:
    return p.source("in", key="k")


def _window(window: Any, **options: Any) -> Callable[[Processor], None]:
    return lambda p: _events(p).window(window, **options).agg(n=agg.count(), x=agg.sum("x"), top=agg.max("x")).to("out")


def _running(p: Processor) -> None:
    _events(p).agg(n=agg.count(), x=agg.sum("x"), top=agg.max("x")).to("out")


def _joined(within: str) -> Callable[[Processor], None]:
    return lambda p: (
        _events(p).join(p.source("other", key="k"), on="k", within=within, prefix="o_").select("k", n="x").to("out")
    )


def count(event: dict[str, Any], seen: ValueState[int]) -> dict[str, Any]:
    """A function that remembers how many records of a key there were."""
    seen.set(seen.get(0) + 1)
    return {"k": event["k"], "n": seen.get()}


OUT = """{"type": "record", "name": "Out", "fields": [
  {"name": "k", "type": "string"}, {"name": "n", "type": "long"}]}"""


def _first_of(p: Processor) -> None:
    _events(p).deduplicate(within="20s").select("k", n="x").to("out")


def _counting(p: Processor) -> None:
    _events(p).handle(count, to="out", schema=OUT)


CASES: dict[str, Case] = {
    "tumbling": Case("tumbling minute, final", _window(Tumbling("1m"))),
    "tumbling-10": Case("tumbling minute, final", _window(Tumbling("1m")), keys=10),
    "tumbling-1m": Case("tumbling minute, final", _window(Tumbling("1m")), keys=1_000_000),
    "tumbling-100ms": Case("tumbling minute, final", _window(Tumbling("1m")), commit_every=10_000),
    "hopping": Case("hopping minute every 15 s, final", _window(Hopping("1m", advance="15s")), adds_up_to=4.0),
    "sliding": Case("sliding 10 s, final", _window(Sliding("10s")), adds_up_to=None),
    "session": Case("session of 30 s, final", _window(Session("30s"))),
    "session-1m": Case("session of an hour, final", _window(Session("1h")), keys=1_000_000, memory=True),
    "session-1m-rocksdb": Case(
        "session of an hour, final, RocksDB", _window(Session("1h")), keys=1_000_000, memory=True, rocksdb=True
    ),
    "running-10": Case("running aggregate", _running, keys=10, last_only=True),
    "running": Case("running aggregate", _running, last_only=True),
    "running-1m": Case("running aggregate", _running, keys=1_000_000, last_only=True, memory=True),
    "tumbling-rocksdb": Case("tumbling minute, final, RocksDB", _window(Tumbling("1m")), rocksdb=True),
    "hour-1m": Case(
        "tumbling hour, updates", _window(Tumbling("1h"), emit="updates"), keys=1_000_000, adds_up_to=None, memory=True
    ),
    "hour-1m-rocksdb": Case(
        "tumbling hour, updates, RocksDB",
        _window(Tumbling("1h"), emit="updates"),
        keys=1_000_000,
        adds_up_to=None,
        memory=True,
        rocksdb=True,
    ),
    "running-1m-rocksdb": Case(
        "running aggregate, RocksDB", _running, keys=1_000_000, last_only=True, memory=True, rocksdb=True
    ),
    "join": Case("inner join of two streams, 20 s", _joined("20s"), keys=100_000, adds_up_to=None, memory=True),
    "join-rocksdb": Case(
        "inner join of two streams, 20 s, RocksDB",
        _joined("20s"),
        keys=100_000,
        adds_up_to=None,
        memory=True,
        rocksdb=True,
    ),
    "join-hour": Case("inner join of two streams, 1 h", _joined("1h"), keys=1_000_000, adds_up_to=None, memory=True),
    "join-hour-rocksdb": Case(
        "inner join of two streams, 1 h, RocksDB",
        _joined("1h"),
        keys=1_000_000,
        adds_up_to=None,
        memory=True,
        rocksdb=True,
    ),
    "deduplicate": Case("deduplicate, 20 s", _first_of, keys=100_000, adds_up_to=None),
    "function": Case("function with a ValueState", _counting, last_only=True),
    "function-1m": Case("function with a ValueState", _counting, keys=1_000_000, last_only=True, memory=True),
}


@dataclass
class _Bench:
    """A task and its input."""

    build: Callable[[Processor], None]
    keys: int
    records: int
    folder: Path
    stores: Stores = field(default_factory=MemoryStores)
    topics: tuple[str, ...] = ("in", "other")

    def __post_init__(self) -> None:
        self.registry = LocalRegistry(":memory:")
        for topic in self.topics:
            (self.folder / f"{topic}.avsc").write_text(SCHEMA)
        self.encoder = AvroEncoder(SCHEMA, self.registry.register("in-value", SCHEMA))
        processor = Processor("bench")
        self.build(processor)
        self.topology = processor.topology
        builder = TaskBuilder(self.topology, self.registry, str(self.folder), sleep=time.sleep, stores=self.stores)
        self.make = builder.build

    def assigned(self) -> tuple[TopologyTask, Sequence[Any]]:
        """A task with all partitions."""
        task = self.make()
        topics = [t for sub in task.subtopologies for t in (*sub.streams, *sub.tables)]
        return task, task.assign([TopicPartition(t, p) for t in topics for p in range(PARTITIONS)])

    def batches(self) -> list[RecordBatch]:
        """The input: keys at random, times ascending, each key in one partition."""
        chance = np.random.default_rng(1)
        topics = [t for t in self.topics if any(t in (*s.streams, *s.tables) for s in self.make().subtopologies)]
        return [self._batch(topics[n % len(topics)], chance, n * BATCH) for n in range(self.records // BATCH)]

    def _batch(self, topic: str, chance: np.random.Generator, start: int) -> RecordBatch:
        numbers = chance.integers(0, self.keys, BATCH)
        names = [f"key-{n:07}" for n in numbers.tolist()]
        columns = pa.RecordBatch.from_pydict({"k": names, "x": pa.array(numbers % 1000, pa.int32())})
        at = np.arange(start, start + BATCH)
        values: list[bytes | None] = list(self.encoder.encode(columns).values)
        return RecordBatch(
            topic, numbers % PARTITIONS, at, BEGIN_MS + at * STEP_MS, [n.encode() for n in names], values
        )


def of_case(name: str, records: int, *, keep: bool) -> Figures:
    """Run a case. Without `keep`, its memory is that of the state alone, and nothing is checked."""
    case = CASES[name]
    with TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        bench = _Bench(case.build, case.keys, records, Path(folder), _stores(Path(folder), stack, rocksdb=case.rocksdb))
        with closing(bench.registry):
            task, _ = bench.assigned()
            batches = bench.batches()
            written: list[ProduceBatch] = []
            changelog: list[ProduceBatch] = []

            def drain() -> None:
                out = task.drain()
                if keep:
                    written.extend(out.records)
                    changelog.extend(out.changelog)

            before, cpu, started = _rss_mb(), time.process_time(), time.perf_counter()
            for n, batch in enumerate(batches, 1):
                task.process([batch])
                if n * BATCH % case.commit_every == 0:
                    drain()
            drain()
            cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
            figures = Figures(
                case.title, case.keys, case.commit_every, cpu / records * 1e6, records / seconds,
                None if keep else _rss_mb() - before, sum(map(len, changelog)),
            )  # fmt: skip
            if keep:
                logged = [*changelog]
                while task.close_windows():
                    drain()
                drain()
                figures.restore_rate = _restore(bench, logged)
                figures.wrong = _wrong(case, bench, written, records)
                figures.checked = case.adds_up_to is not None
            return figures


def _restore(bench: _Bench, changelog: Sequence[ProduceBatch]) -> float | None:
    """Records a second of a restore of a whole changelog, compacted or not."""
    records = list(_as_consumed(changelog))
    if not records:
        return None
    task, restores = bench.assigned()
    wanted = {(restore.source.topic, restore.source.partition): restore for restore in restores}
    started = time.perf_counter()
    for batch in records:
        task.restore(wanted[batch.topic, int(batch.partitions[0])], batch)
    for restore in restores:
        task.stores[restore.store].restored(restore.partition)
    return sum(map(len, records)) / (time.perf_counter() - started)


def _as_consumed(changelog: Sequence[ProduceBatch]) -> Iterator[RecordBatch]:
    for batch in changelog:
        partitions = np.array(batch.partitions)
        for partition in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == partition)
            for some in np.array_split(rows, max(1, len(rows) // BATCH)):
                at = some.tolist()
                yield RecordBatch(
                    batch.topic, partitions[some], some, np.zeros(len(some), np.int64),
                    [batch.keys[i] for i in at], [batch.values[i] for i in at],
                )  # fmt: skip


def _wrong(case: Case, bench: _Bench, written: Sequence[ProduceBatch], records: int) -> str:
    """What the results do not add up to."""
    if not written:
        return "nothing was written"
    text = bench.registry.latest("out-value").text
    decoder = AvroDecoder(bench.registry, text)
    told = pa.Table.from_batches([decoder.decode(list(batch.values)).columns for batch in written]).select(["k", "n"])
    if case.adds_up_to is None:
        return ""
    numbers = told.column("n").to_pylist()
    last = dict(zip(told.column("k").to_pylist(), numbers, strict=True))
    total = sum(last.values() if case.last_only else numbers)
    return "" if total == case.adds_up_to * records else f"n adds up to {total}, not {case.adds_up_to * records:.0f}"


def of_tables(kind: str, records: int) -> Figures:
    """A table of as many keys as records: its restore, and look-ups of as many records."""
    with TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        stores = _stores(Path(folder), stack, rocksdb=kind == "rocksdb")

        def build(p: Processor) -> None:
            rows = p.table("other", key="k")
            _events(p).join(rows, on="k", columns=["x"], prefix="o_").select("k", n="o_x").to("out")

        bench = _Bench(build, 1_000_000, records, Path(folder), stores)
        with closing(bench.registry):
            task, restores = bench.assigned()
            whole = bench.batches()
            table, lookups = [b for b in whole if b.topic == "other"], [b for b in whole if b.topic == "in"]
            of_partition = {r.partition: r for r in restores if r.source.topic == "other"}
            parts = [
                (of_partition[p], batch.take(np.flatnonzero(batch.partitions == p)))
                for batch in table for p in range(PARTITIONS)
            ]  # fmt: skip
            before, started = _rss_mb(), time.perf_counter()
            for restore, batch in parts:
                task.restore(restore, batch)
            rate = sum(map(len, table)) / (time.perf_counter() - started)
            cpu, started = time.process_time(), time.perf_counter()
            for batch in lookups:
                task.process([batch])
                task.drain()
            cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
            size = sum(map(len, lookups))
            return Figures(
                f"look-up in a table, {kind}", 1_000_000, BATCH, cpu / size * 1e6, size / seconds, _rss_mb() - before,
                sum(map(len, table)), rate, checked=False,
            )  # fmt: skip


def _rss_mb() -> float:
    """Memory of this process now, in MiB; Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _stores(folder: Path, stack: ExitStack, *, rocksdb: bool) -> Stores:
    return stack.enter_context(closing(RocksStores(folder / "state", 256))) if rocksdb else MemoryStores()
