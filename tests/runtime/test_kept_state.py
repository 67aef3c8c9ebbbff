"""State that a worker kept when it stopped: the next one reads the rest of the changelog, if it is the same one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from streampipe import Processor, Session, Tumbling, agg
from streampipe.brokers.port import Broker
from streampipe.clock import SystemClock
from streampipe.records import ProduceBatch
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.topics import prepare_topics
from streampipe.runtime.worker import Worker
from streampipe.schemas.codec import AvroDecoder, AvroEncoder
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.state import kept
from streampipe.state.kept import VOID_AFTER_MS, Mark
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.state.rocksdb import RocksStores
from tests.operators.pipelines import avro
from tests.runtime.fakes import Names, Watcher, read, settings

START_MS = 1_767_225_600_000


class Later(SystemClock):
    """Some days from now, by the wall clock."""

    def now_ms(self) -> int:
        return super().now_ms() + 2 * VOID_AFTER_MS


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
        (self.folder / f"{self.names.input}.avsc").write_text(avro("Order", user="string", n="long"))
        (self.folder / f"{self.names.table}.avsc").write_text(avro("User", user="string", full="string"))
        self.registry = LocalRegistry(str(self.folder / "registry.db"))
        p = Processor(self.names.app)
        users, orders = p.table(self.names.table, key="user"), p.source(self.names.input, key="user")
        orders.agg(n=agg.sum("n"), name="totals").to(f"{self.names.app}.totals")
        orders.window(Tumbling("1d"), emit="updates", name="days").agg(n=agg.sum("n")).to(f"{self.names.app}.days")
        orders.window(Session("1d"), emit="updates", name="visits").agg(n=agg.sum("n")).to(f"{self.names.app}.visits")
        orders.join(users, on="user").to(f"{self.names.app}.named")
        self.topology = p.topology
        with closing(self.broker.admin()) as admin:
            prepare_topics(self.topology, admin, create=True)
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

    def run(self, **options: object) -> Counter[str]:
        """Run until everything is consumed; which stores restored how many records."""
        watcher = Watcher()
        builder = TaskBuilder(
            self.topology, self.registry, str(self.folder), sleep=time.sleep, stores=self.stores()
        )  # fmt: skip
        Worker(
            builder.build, self.broker, settings(), app_id=self.names.app, observer=watcher, until_caught_up=True,
            **options,  # type: ignore[arg-type]
        ).run()  # fmt: skip
        restored: Counter[str] = Counter()
        for store, count, _ in watcher.restores:
            restored[store] += count
        return +restored

    def check(self) -> None:
        """Every total is right."""
        for topic in ("totals", "days", "visits"):
            decoder = AvroDecoder(self.registry, self.registry.latest(f"{self.names.app}.{topic}-value").text)
            rows = decoder.decode([record.value for record in read(self.broker, f"{self.names.app}.{topic}")])
            told = {row["user"]: row["n"] for row in rows.columns.to_pylist() if not row.get("retracted")}
            assert told == dict(self.totals), topic
        assert len(read(self.broker, f"{self.names.app}.named")) == self.fed


@pytest.fixture(params=["memory", "rocksdb"])
def shop(request: pytest.FixtureRequest, broker: Broker, names: Names, tmp_path: Path) -> Iterator[Shop]:
    opened: list[RocksStores] = []

    def stores() -> Stores:
        if request.param == "memory":
            return MemoryStores(tmp_path / "kept")
        for old in opened:
            old.close()
        opened[:] = [RocksStores(tmp_path / "worker", 8, tmp_path / "kept")]
        return opened[0]

    made = Shop(broker, names, tmp_path, stores)
    yield made
    for old in opened:
        old.close()
    made.registry.close()


def test_an_orderly_restart_restores_nothing_that_was_kept(shop: Shop) -> None:
    shop.feed(200)
    shop.run()
    shop.feed(100)
    assert shop.run() == {}
    shop.check()
    assert shop.run() == {}


def test_what_was_kept_before_somebody_else_went_on_is_brought_up_to_date(shop: Shop) -> None:
    shop.feed(200)
    shop.run()
    usual, shop.stores = shop.stores, MemoryStores
    shop.feed(20)
    elsewhere = shop.run()
    shop.stores = usual
    shop.feed(5)
    tail = shop.run()
    shop.check()
    assert 0 < tail["totals"] < elsewhere["totals"]


def test_a_changelog_that_was_made_anew_is_read_whole(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.feed(200)
    shop.run()
    topics = [f"{shop.names.app}-{name}-changelog" for name in ("totals", "days", "visits")]
    with closing(shop.broker.admin()) as admin:
        for topic in topics:
            admin.delete_topic(topic)
        prepare_topics(shop.topology, admin, create=True)
    for key in shop.totals:
        shop.totals[key] = 0
    shop.feed(200)
    with caplog.at_level("INFO", "streampipe.runtime.restore"):
        shop.run()
    shop.check()
    assert "is restored from the beginning" in caplog.text


def test_what_lies_longer_than_tombstones_do_is_not_used(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.feed(200)
    shop.run()
    shop.feed(10)
    with caplog.at_level("INFO", "streampipe.runtime.restore"):
        assert shop.run(clock=Later())["totals"] >= 50
    shop.check()
    assert "it was kept too long ago" in caplog.text


def test_state_that_says_to_go_further_than_its_changelog_is_not_used(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    shop = Shop(broker, names, tmp_path, lambda: MemoryStores(tmp_path / "kept"))
    shop.feed(200)
    shop.run()
    for path in (tmp_path / "kept").rglob("*.state"):
        found = kept.read(path)
        assert found is not None
        mark, _ = found
        kept.write(path, Mark(mark.topic_id, mark.offset + 10_000, mark.at_ms, mark.shape), {})
    shop.feed(10)
    assert shop.run()["totals"] >= 50
    shop.check()
