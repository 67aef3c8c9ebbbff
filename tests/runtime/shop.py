"""A processor with state of every kind, its topics and its workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from streampipe import Processor, Session, Tumbling, agg
from streampipe.brokers.port import Broker
from streampipe.records import ProduceBatch
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.topics import prepare_topics
from streampipe.runtime.worker import Worker
from streampipe.schemas.codec import AvroDecoder, AvroEncoder
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.state.port import Stores
from tests.operators.pipelines import avro
from tests.runtime.fakes import PARTITIONS, Names, Watcher, read, settings

START_MS = 1_767_225_600_000


@dataclass
class Shop:
    """One processor, run as often as is asked for."""

    broker: Broker
    names: Names
    folder: Path
    stores: Callable[[], Stores]
    fed: int = 0
    totals: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.refunds = f"{self.names.app}.refunds"
        for topic in (self.names.input, self.refunds):
            (self.folder / f"{topic}.avsc").write_text(avro("Order", user="string", n="long"))
        (self.folder / f"{self.names.table}.avsc").write_text(avro("User", user="string", full="string"))
        self.registry = LocalRegistry(str(self.folder / "registry.db"))
        p = Processor(self.names.app)
        users, orders = p.table(self.names.table, key="user"), p.source(self.names.input, key="user")
        orders.agg(n=agg.sum("n"), name="totals").to(f"{self.names.app}.totals")
        orders.window(Tumbling("1d"), emit="updates", name="days").agg(n=agg.sum("n")).to(f"{self.names.app}.days")
        orders.window(Session("1d"), emit="updates", name="visits").agg(n=agg.sum("n")).to(f"{self.names.app}.visits")
        orders.join(users, on="user").to(f"{self.names.app}.named")
        refunds = p.source(self.refunds, key="user")
        orders.join(refunds, on="user", within="1d", prefix="other_", name="pairs").to(f"{self.names.app}.paired")
        orders.deduplicate(within="1d", name="first").to(f"{self.names.app}.first")
        self.topology = p.topology
        with closing(self.broker.admin()) as admin:
            admin.create_topic(self.refunds, PARTITIONS)
            prepare_topics(self.topology, admin, create=True)
        self._produce(self.refunds, [{"user": f"u{n}", "n": n} for n in range(50)])
        self._produce(self.names.table, [{"user": f"u{n}", "full": f"U{n}"} for n in range(50)])

    def feed(self, count: int) -> None:
        rows = [{"user": f"u{n % 50}", "n": n} for n in range(self.fed, self.fed + count)]
        for row in rows:
            self.totals[str(row["user"])] += int(str(row["n"]))
        self._produce(self.names.input, rows)
        self.fed += count

    def _produce(self, topic: str, rows: list[dict[str, object]]) -> None:
        text = (self.folder / f"{topic}.avsc").read_text()
        encoder = AvroEncoder(text, self.registry.register(f"{topic}-value", text))
        values = encoder.encode(pa.RecordBatch.from_pylist(rows, schema=encoder.arrow)).values
        with closing(self.broker.producer()) as producer:
            keys = [str(row["user"]).encode() for row in rows]
            producer.produce(ProduceBatch(topic, keys, values, [START_MS] * len(rows)))
            producer.flush()

    def worker(self, watcher: Watcher, **options: object) -> Worker:
        """A worker of it, with stores of its own."""
        builder = TaskBuilder(
            self.topology, self.registry, str(self.folder), sleep=time.sleep, stores=self.stores()
        )  # fmt: skip
        given = {"settings": settings(), **options}
        return Worker(builder.build, self.broker, app_id=self.names.app, observer=watcher, **given)  # type: ignore[arg-type]

    def run(self, **options: object) -> Counter[str]:
        """Run until everything is consumed; which stores restored how many records."""
        watcher = Watcher()
        self.worker(watcher, until_caught_up=True, **options).run()
        return restored(watcher)

    def check(self) -> None:
        """Every total is right."""
        for topic in ("totals", "days", "visits"):
            decoder = AvroDecoder(self.registry, self.registry.latest(f"{self.names.app}.{topic}-value").text)
            rows = decoder.decode([record.value for record in read(self.broker, f"{self.names.app}.{topic}")])
            told = {row["user"]: row["n"] for row in rows.columns.to_pylist() if not row.get("retracted")}
            assert told == dict(self.totals), topic
        assert len(read(self.broker, f"{self.names.app}.named")) == self.fed
        assert len(read(self.broker, f"{self.names.app}.paired")) == self.fed
        assert len(read(self.broker, f"{self.names.app}.first")) == len(self.totals)


def restored(watcher: Watcher) -> Counter[str]:
    """Records that were restored, by store."""
    counts: Counter[str] = Counter()
    for store, count, _ in watcher.restores:
        counts[store] += count
    return +counts
