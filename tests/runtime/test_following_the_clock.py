"""Windows of silent partitions close by the wall clock: never in a replay, and never while something is to come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from streampipe import Processor, Tumbling, agg
from streampipe.brokers.local import LocalBroker
from streampipe.brokers.port import Broker
from streampipe.brokers.simulated import VirtualClock
from streampipe.errors import Unavailable
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition, records_of
from streampipe.runtime import backlog
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.task import TopologyTask
from streampipe.runtime.topics import external_inputs, prepare_topics
from streampipe.runtime.worker import Worker
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.testing import TopologyTestDriver
from streampipe.testing.topics import Topics
from tests.operators.pipelines import avro
from tests.runtime.fakes import settings

START_MS = 1_767_225_600_000
ROW = avro("Row", k="string")
IDLE_AFTER_S = 30
LONG_S = 3 * IDLE_AFTER_S


def counting() -> Processor:
    """A final count of each ten seconds."""
    made = Processor("app")
    made.source("in", key="k", schema=ROW).window(Tumbling("10s"), name="count").agg(n=agg.count()).to("counts")
    return made


class Place:
    """Workers of one processor on the embedded log, on a clock that only the test moves: a turn is a second."""

    def __init__(self, folder: Path, processor: Processor, partitions: int = 1) -> None:
        self.clock = VirtualClock(START_MS)
        self.broker: Broker = LocalBroker(
            folder / "broker.db", session_timeout_s=1e6, transaction_timeout_s=1e6, clock=self.clock, heartbeats=False
        )
        registry, self.topology = LocalRegistry(":memory:"), processor.topology
        self.topics = Topics(self.topology, registry, str(folder), partitions)
        self.build = TaskBuilder(self.topology, registry, str(folder), sleep=self.clock.sleep_s).build
        with closing(self.broker.admin()) as admin:
            for topic in external_inputs(self.topology):
                admin.create_topic(topic, partitions)
            prepare_topics(self.topology, admin, create=True)

    def comes(self, topic: str = "in", partition: int = 0, k: str = "a", records: int = 1) -> None:
        """Records of the first ten seconds."""
        made = self.topics.encoded(topic, [{"k": k}] * records, None, START_MS, ())
        with closing(self.broker.producer()) as producer:
            producer.produce(ProduceBatch(topic, made.keys, made.values, made.timestamps, [partition] * records))
            producer.flush()

    @contextmanager
    def worker(
        self, broker: Broker | None = None, task: Callable[[], TopologyTask] | None = None, **options: Any
    ) -> Iterator[Callable[[int], None]]:
        """A worker that takes so many turns when told to."""
        changes = {"max_poll_wait_ms": 0, **options.pop("settings", {})}
        worker = Worker(
            task or self.build, broker or self.broker, settings(**changes), app_id=self.topology.app_id,
            clock=self.clock, **options,
        )  # fmt: skip
        turns = worker.turns()

        def passes(seconds: int) -> None:
            for _ in range(seconds):
                self.clock.sleep_s(1.0)
                next(turns)

        passes(3)  # joins, takes its partitions on and reads what there is
        yield passes
        worker.stop()
        for _ in turns:
            pass

    @contextmanager
    def open_transaction(self, topic: str, partition: int) -> Iterator[None]:
        """A stranger's transaction, which keeps everybody from reading this partition to its end."""
        with closing(self.broker.producer("stranger")) as producer:
            producer.begin()
            producer.produce(ProduceBatch(topic, [b"k"], [b"v"], [START_MS], [partition]))
            producer.flush()
            yield
            producer.abort()

    @property
    def closed(self) -> list[int]:
        """How many records each window had that was closed."""
        return self.closed_in("counts")

    def closed_in(self, topic: str) -> list[int]:
        """The same, of windows that go to this topic."""
        with closing(self.broker.admin()) as admin:
            ends = [TopicPartition(topic, number) for number in range(admin.describe_topic(topic).partitions)]
            reader = self.broker.reader(admin.offsets(ends, "earliest"))
        with closing(reader):
            told = [record for batch in reader.poll(1_000, 0.0) for record in records_of(batch)]
        return [event["n"] for event in (output.event for output in self.topics.decoded(told)) if event]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, counting(), partitions=2)


def test_a_window_of_a_silent_partition_closes_by_the_clock_after_idle_after(place: Place) -> None:
    place.comes()
    with place.worker() as passes:
        passes(IDLE_AFTER_S - 5)
        assert place.closed == []
        passes(10)
        assert place.closed == [1]


def test_a_replay_never_follows_the_clock(place: Place) -> None:
    place.comes()
    with place.worker(replay=True) as passes:
        passes(LONG_S)
    assert place.closed == []


def test_a_partition_that_is_paused_does_not_follow_the_clock(place: Place) -> None:
    place.comes()
    bounds = {TopicPartition("in", 0): 1, TopicPartition("in", 1): 1}  # the second one is still waited for
    with place.worker(until=bounds) as passes:
        passes(LONG_S)
    assert place.closed == []


def test_a_paused_partition_that_goes_to_another_worker_is_not_asked_about_again(tmp_path: Path) -> None:
    place = Place(tmp_path, counting(), partitions=4)
    for partition in range(3):
        place.comes(partition=partition)
    bounds = {TopicPartition("in", number): 1 for number in range(4)}
    with place.worker(until=bounds) as first:
        first(3)
        with place.worker(slot=1, until=bounds) as second:
            for _ in range(LONG_S):
                first(1)
                second(1)
    assert place.closed == []


def test_nothing_follows_the_clock_while_state_is_restored(place: Place) -> None:
    place.comes()
    with place.worker():
        pass  # and its state is there to be restored
    with place.open_transaction("app-count-changelog", 1), place.worker() as passes:
        passes(LONG_S)
        assert place.closed == []
    with place.worker() as passes:
        passes(IDLE_AFTER_S + 5)
    assert place.closed == [1]


def test_nothing_follows_the_clock_while_a_global_table_is_loaded(tmp_path: Path) -> None:
    made = Processor("app")
    names = made.global_table("names", key="k", schema=ROW)
    stream = made.source("in", key="k", schema=ROW).join(names, on="k")
    stream.window(Tumbling("10s"), name="count").agg(n=agg.count()).to("counts")
    place = Place(tmp_path, made)
    place.comes("names")
    place.comes()
    with place.worker() as passes:
        passes(3)
    with place.open_transaction("names", 0), place.worker() as passes:
        passes(LONG_S)
        assert place.closed == []
    with place.worker() as passes:
        passes(IDLE_AFTER_S + 5)
    assert place.closed == [1]


def two_inputs() -> Processor:
    """A final count of each ten seconds of two inputs that have nothing to do with each other."""
    made = Processor("app")
    for topic in ("quiet", "busy"):
        made.source(topic, key="k", schema=ROW).window(Tumbling("10s")).agg(n=agg.count()).to(f"{topic}-counts")
    return made


def test_windows_of_a_silent_input_close_while_another_input_is_busy(tmp_path: Path) -> None:
    place = Place(tmp_path, two_inputs())
    place.comes("quiet")
    with place.worker() as passes:
        for _ in range(IDLE_AFTER_S + 5):
            place.comes("busy")
            passes(1)
        assert place.closed_in("quiet-counts") == [1]
        assert place.closed_in("busy-counts") == []


def test_windows_of_a_silent_input_close_while_another_input_has_more_than_can_be_processed(tmp_path: Path) -> None:
    place = Place(tmp_path, two_inputs())
    place.comes("quiet")
    task = Troubled(place)
    with place.worker(task=lambda: cast(TopologyTask, task), settings={"batch_size": 3}) as passes:
        task.record_takes_s = 2 * backlog.TURN_S
        for _ in range(IDLE_AFTER_S + 10):
            place.comes("busy", records=3)
            passes(1)
        assert place.closed_in("quiet-counts") == [1]
        assert place.closed_in("busy-counts") == []


def test_windows_behind_a_repartition_topic_stay_open_while_records_for_it_may_still_be_read(tmp_path: Path) -> None:
    made = Processor("app")
    seldom = made.source("in", schema=ROW).filter(pl.col("k") == "a").key_by("k")
    seldom.window(Tumbling("10s")).agg(n=agg.count()).to("counts")
    place = Place(tmp_path, made)
    place.comes()
    with place.worker() as passes:
        for _ in range(LONG_S):
            place.comes(k="b")
            passes(1)
        assert place.closed == []
        passes(IDLE_AFTER_S + 5)
        assert place.closed == [1]


def test_in_the_driver_of_tests_too_windows_of_a_silent_input_close_while_another_input_is_busy() -> None:
    with TopologyTestDriver(two_inputs()) as driver:
        driver.send("quiet", {"k": "a"})
        driver.advance("20s")
        driver.send("busy", {"k": "a"})
        driver.advance("20s")
        assert [event and event["n"] for event in driver.events("quiet-counts")] == [1]
        assert driver.events("busy-counts") == []


class Deaf:
    """A broker whose consumers are handed nothing while it is told so."""

    def __init__(self, broker: Broker) -> None:
        self._broker, self.deaf = broker, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def consumer(self, *arguments: Any, **options: Any) -> Any:
        inner = self._broker.consumer(*arguments, **options)
        poll = inner.poll
        inner.poll = lambda *wanted: [] if self.deaf else poll(*wanted)  # type: ignore[method-assign] # the fault
        return inner


class Troubled:
    """A task that is slow, or has to wait for something, when it is told to."""

    def __init__(self, place: Place) -> None:
        self._place, self._task = place, place.build()
        self.down = False
        self.record_takes_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
        self._place.clock.sleep_s(self.record_takes_s * sum(map(len, batches)))
        if self.down:
            raise Unavailable("a registry is down")
        self._task.process(batches, now_ms)


def test_nothing_follows_the_clock_while_records_wait_for_a_retry(place: Place) -> None:
    place.comes()
    task = Troubled(place)
    with place.worker(task=lambda: cast(TopologyTask, task)) as passes:
        passes(IDLE_AFTER_S - 5)
        place.clock.sleep_s(10)  # so that it is silent for long enough when the record comes
        task.down = True
        place.comes()
        passes(LONG_S)
        assert place.closed == []
        task.down = False
        passes(IDLE_AFTER_S + 10)
        assert place.closed == [2]


def test_nothing_follows_the_clock_while_records_wait_for_their_turn(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "FIRST_SLICE", 1)
    place.comes(partition=0)
    place.comes(partition=1)
    task = Troubled(place)
    with place.worker(task=lambda: cast(TopologyTask, task)) as passes:
        passes(IDLE_AFTER_S - 5)
        place.clock.sleep_s(10)
        task.record_takes_s = backlog.TURN_S
        for partition in (0, 1):
            for _ in range(8):
                place.comes(partition=partition)
        passes(IDLE_AFTER_S - 10)
        assert place.closed == []
        passes(IDLE_AFTER_S)
        assert place.closed == [9, 9]


def test_a_partition_that_is_behind_does_not_follow_the_clock(place: Place) -> None:
    place.comes()
    broker = Deaf(place.broker)
    with place.worker(broker=cast(Broker, broker)) as passes:
        passes(IDLE_AFTER_S - 5)
        broker.deaf = True
        place.comes()
        passes(8)
        assert place.closed == []
        broker.deaf = False
        passes(IDLE_AFTER_S + 5)
        assert place.closed == [2]
