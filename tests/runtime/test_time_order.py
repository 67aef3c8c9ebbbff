"""Inputs that meet come in the order of their times, whichever the broker hands over first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe import Processor, Tumbling, agg
from streampipe.brokers.port import Broker
from streampipe.errors import Unavailable
from streampipe.records import ProduceBatch, Record, RecordBatch, TopicPartition, batch_of, records_of
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.port import SubTopology
from streampipe.runtime.time_order import TimeOrder
from streampipe.runtime.topics import prepare_topics
from streampipe.runtime.worker import Worker
from streampipe.schemas.codec import AvroDecoder, AvroEncoder
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.state.memory import MemoryStores
from streampipe.streams import Stream
from tests.brokers.helpers import unique
from tests.operators.pipelines import avro
from tests.runtime.fakes import Watcher, read, settings

START = datetime(2026, 1, 1, tzinfo=UTC)
TOPICS = ("a", "b")
Row = tuple[int, int, int]
"""Topic by number, partition and time; a negative time is none."""


class Feed:
    """Two topics that are read bit by bit."""

    def __init__(self, rows: list[Row]) -> None:
        self.unread: dict[str, list[Record]] = {topic: [] for topic in TOPICS}
        offsets = Counter[TopicPartition]()
        for topic, partition, at in rows:
            place = TopicPartition(TOPICS[topic], partition)
            self.unread[place.topic].append(Record(*place, offsets[place], at, None, b""))
            offsets[place] += 1
        part = SubTopology(streams=TOPICS, tables=())
        self.order = TimeOrder([part], lambda batch: batch.timestamps, self.exhausted)

    def exhausted(self, asked: Collection[TopicPartition]) -> list[TopicPartition]:
        return [tp for tp in asked if not any(r.partition == tp.partition for r in self.unread[tp.topic])]

    def poll(self, topic: str, count: int) -> None:
        taken, self.unread[topic] = self.unread[topic][:count], self.unread[topic][count:]
        if taken:
            self.order.add(batch_of(taken))

    def rounds(self, limit: int) -> list[list[RecordBatch]]:
        found = []
        while batches := self.order.next(limit):
            found.append(batches)
        return found


def moments(batches: list[RecordBatch], reached: dict[TopicPartition, int]) -> dict[int, list[int]]:
    """When it is the turn of each record, by partition number; `reached` goes on with it."""
    found: dict[int, list[int]] = {}
    for record in (record for batch in batches for record in records_of(batch)):
        place = TopicPartition(record.topic, record.partition)
        reached[place] = max(reached.get(place, -1), record.timestamp)
        found.setdefault(record.partition, []).append(reached[place])
    return found


@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-1, 30)), max_size=40),
    polls=st.lists(st.tuples(st.sampled_from(TOPICS), st.integers(1, 10)), max_size=20),
    limit=st.sampled_from([1, 3, 100]),
)
def test_no_record_comes_after_one_whose_turn_is_later_and_each_comes_once(
    rows: list[Row], polls: list[tuple[str, int]], limit: int
) -> None:
    feed, reached, done = Feed(rows), dict[TopicPartition, int](), list[Record]()
    last = dict[int, int]()
    for topic, count in [*polls, *((topic, 100) for topic in TOPICS)]:
        feed.poll(topic, count)
        for batches in feed.rounds(limit):
            assert [batch.topic for batch in batches] == sorted({batch.topic for batch in batches})
            done += [record for batch in batches for record in records_of(batch)]
            for partition, found in moments(batches, reached).items():
                assert min(found) >= last.get(partition, -1)
                last[partition] = max(found)
    assert len(feed.order) == 0
    for n, topic in enumerate(TOPICS):
        for partition in range(3):
            mine = [r for r in done if (r.topic, r.partition) == (topic, partition)]
            assert [r.offset for r in mine] == list(range(sum(row[:2] == (n, partition) for row in rows)))


def test_a_round_has_about_as_many_records_as_asked_for_the_oldest_ones() -> None:
    feed = Feed([(0, 0, t) for t in range(0, 20, 2)] + [(1, 0, t) for t in range(1, 20, 2)])
    feed.poll("a", 10)
    feed.poll("b", 10)
    [first, *_] = feed.rounds(6)
    assert [batch.timestamps.tolist() for batch in first] == [[0, 2, 4], [1, 3, 5]]


def test_what_goes_away_is_forgotten_and_what_waits_is_told_by_its_first_offsets() -> None:
    feed = Feed([(0, 0, 5), (0, 1, 6), (1, 0, 3), (1, 1, 9)])
    feed.poll("a", 2)
    assert feed.rounds(10) == []
    assert [(topic, p.tolist(), o.tolist()) for topic, p, o in feed.order.waiting()] == [("a", [0, 1], [0, 0])]
    feed.order.let_go([TopicPartition("a", 0), TopicPartition("b", 0)])
    feed.poll("b", 2)
    left = [(r.topic, r.partition) for batches in feed.rounds(10) for batch in batches for r in records_of(batch)]
    assert sorted(left) == [("a", 1), ("b", 0), ("b", 1)]


def test_times_that_are_unavailable_are_asked_for_again() -> None:
    feed = Feed([(0, 0, 5), (1, 0, 7)])
    answers: list[Any] = [Unavailable("the registry does not answer")]

    def times(batch: RecordBatch) -> np.ndarray:
        if answers:
            raise answers.pop()
        return batch.timestamps

    feed.order = TimeOrder([SubTopology(TOPICS, ())], times, feed.exhausted)
    feed.poll("a", 1)
    feed.poll("b", 1)
    with pytest.raises(Unavailable):
        feed.order.next(10)
    assert [batch.topic for batch in feed.order.next(10)] == ["a"]


# --- with a worker ----------------------------------------------------------------------------------------------------

COUNT = 600


def caught_up(broker: Broker, folder: Path, make: Callable[[Stream, Stream], Stream], batch_size: int) -> list[Any]:
    """What comes of a click each minute, each with a view ten seconds before, which were all there beforehand."""
    app = unique("app")
    topics = {f"{app}.{name}": shift_s for name, shift_s in (("clicks", 0), ("views", -10))}
    registry = LocalRegistry(str(folder / "registry.db"))
    at = {"type": "long", "logicalType": "timestamp-millis"}
    for topic in topics:
        (folder / f"{topic}.avsc").write_text(avro("Seen", user="string", at=at, n="int"))
    p = Processor(app)
    make(*(p.source(topic, key="user", event_time="at") for topic in topics)).to(f"{app}.out")
    with closing(broker.admin()) as admin, closing(broker.producer()) as producer:
        for topic in topics:
            assert admin.create_topic(topic, 2)
        prepare_topics(p.topology, admin, create=True)
        for topic, shift_s in topics.items():
            text = (folder / f"{topic}.avsc").read_text()
            encoder = AvroEncoder(text, registry.register(f"{topic}-value", text))
            users = ["abcd"[n % 4] for n in range(COUNT)]
            rows = [
                {"user": user, "at": START + timedelta(minutes=n, seconds=shift_s), "n": n}
                for n, user in enumerate(users)
            ]
            values = encoder.encode(pa.RecordBatch.from_pylist(rows, schema=encoder.arrow)).values
            producer.produce(ProduceBatch(topic, [user.encode() for user in users], values))
            producer.flush()
    builder = TaskBuilder(p.topology, registry, str(folder), sleep=time.sleep, stores=MemoryStores())
    worker = Worker(
        builder.build, broker, app_id=app, observer=Watcher(), settings=settings(batch_size=batch_size),
        until_caught_up=True, close_windows=True,
    )  # fmt: skip
    worker.run()
    assert read(broker, f"{app}-dlq") == []
    decoder = AvroDecoder(registry, registry.latest(f"{app}.out-value").text)
    found: list[Any] = decoder.decode([record.value for record in read(broker, f"{app}.out")]).columns.to_pylist()
    return found


@pytest.mark.parametrize("batch_size", [10, 10_000])
def test_a_join_that_catches_up_finds_every_pair_and_nothing_late(
    broker: Broker, tmp_path: Path, batch_size: int
) -> None:
    def joined(clicks: Stream, views: Stream) -> Stream:
        return clicks.join(views, on="user", within=("1m", "0s"), how="left", prefix="view_", idle_after="never")

    pairs = caught_up(broker, tmp_path, joined, batch_size)
    assert Counter((row["n"], row["view_n"]) for row in pairs) == Counter((n, n) for n in range(COUNT))


def test_a_window_behind_merged_streams_that_catch_up_misses_nothing(broker: Broker, tmp_path: Path) -> None:
    def counted(clicks: Stream, views: Stream) -> Stream:
        return clicks.merge(views).window(Tumbling("10m"), idle_after="never").agg(n=agg.count())

    assert sum(row["n"] for row in caught_up(broker, tmp_path, counted, 100)) == 2 * COUNT
