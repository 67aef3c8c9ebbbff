from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streampipe.brokers.local import LocalBroker
from streampipe.brokers.port import Admin, Offsets, Reader
from streampipe.errors import NotFound, StreampipeError, Unavailable
from streampipe.observe.lag import LagReader, PartitionLag
from streampipe.observe.lag_metrics import LagMonitor
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition

NOW = 1_700_000_000_000
P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Forlorn:
    """An admin client that never finds its broker again once that was gone."""

    def __init__(self, admin: Admin, broker: Counting) -> None:
        self._admin, self._broker, self._lost = admin, broker, False

    def __getattr__(self, name: str) -> object:
        self._lost = self._lost or self._broker.gone
        if self._lost and name != "close":
            raise Unavailable("gone")
        return getattr(self._admin, name)


class Counting:
    """A broker that counts the readers it opens and may be gone."""

    def __init__(self, broker: LocalBroker) -> None:
        self._broker, self.readers, self.gone = broker, 0, False
        self.name = broker.name

    def admin(self) -> Admin:
        if self.gone:
            raise Unavailable("gone")
        return cast("Admin", Forlorn(self._broker.admin(), self))

    def reader(self, offsets: Offsets, isolation: str = "read_committed") -> Reader:
        self.readers += 1
        return self._broker.reader(offsets, isolation)  # type: ignore[arg-type]  # passed on as it came

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)


@pytest.fixture
def broker(tmp_path: Path) -> Counting:
    made = LocalBroker(tmp_path / "broker.db")
    admin = made.admin()
    admin.create_topic("t", 2)
    admin.close()
    return Counting(made)


@pytest.fixture
def lags(broker: Counting) -> Iterator[LagReader]:
    reader = LagReader(broker, lambda: NOW)  # type: ignore[arg-type]  # the rest of it is by __getattr__
    yield reader
    reader.close()


def produce(broker: Counting, partition: int, *ages_s: float, abort: bool | None = None) -> None:
    producer = broker._broker.producer(None if abort is None else "x")
    if abort is not None:
        producer.begin()
    times = [int(NOW - age * 1000) if age != float("inf") else -1 for age in ages_s]
    producer.produce(ProduceBatch("t", [None] * len(times), [b"v"] * len(times), times, [partition] * len(times)))
    if abort is None:
        producer.flush()
    elif abort:
        producer.abort()
    else:
        producer.commit()
    producer.close()


def commit(broker: Counting, **offsets: int) -> None:
    admin = broker._broker.admin()
    admin.set_committed("g", {TopicPartition("t", int(name[1])): offset for name, offset in offsets.items()})
    admin.close()


def test_lag_is_the_age_of_the_first_record_not_committed(broker: Counting, lags: LagReader) -> None:
    produce(broker, 0, 100, 50, 10)
    commit(broker, p0=1, p1=0)
    first, second = lags.group("g")
    assert (first.records, first.seconds, first.oldest_ms) == (2, 50.0, NOW - 50_000)
    assert (second.records, second.seconds) == (0, 0.0)


def test_caught_up_is_zero_and_reads_nothing(broker: Counting, lags: LagReader) -> None:
    produce(broker, 0, 100)
    commit(broker, p0=1, p1=0)
    assert [(lag.records, lag.seconds) for lag in lags.group("g")] == [(0, 0.0)] * 2
    assert broker.readers == 0


def test_a_partition_without_commit_has_no_lag_rather_than_zero_or_all(broker: Counting, lags: LagReader) -> None:
    produce(broker, 1, 5)
    commit(broker, p0=0)
    assert lags.group("g")[1] == PartitionLag("t", 1, None, 0, 1, None, None)


def test_an_empty_partition_without_commit_is_caught_up(broker: Counting, lags: LagReader) -> None:
    commit(broker, p0=0)
    assert lags.group("g")[1] == PartitionLag("t", 1, None, 0, 0, 0, 0.0)


def test_an_unknown_group_is_not_found(lags: LagReader) -> None:
    with pytest.raises(NotFound, match="'nobody'"):
        lags.group("nobody")


def test_a_tail_without_any_visible_record_is_no_lag(broker: Counting, lags: LagReader) -> None:
    produce(broker, 0, 100, 90, abort=True)
    commit(broker, p0=0)
    lag = lags.group("g")[0]
    assert lag.end == 2
    assert (lag.records, lag.seconds) == (0, 0.0)
    produce(broker, 0, 5)
    assert lags.group("g")[0].seconds == 5.0


def test_aborted_records_are_no_lag_and_make_the_count_an_upper_bound(broker: Counting, lags: LagReader) -> None:
    produce(broker, 0, 100, 90, abort=True)
    produce(broker, 0, 10)
    commit(broker, p0=0)
    lag = lags.group("g")[0]
    assert (lag.seconds, lag.is_upper_bound) == (10.0, True)


def test_an_open_transaction_is_nobodys_lag_yet(broker: Counting, lags: LagReader) -> None:
    commit(broker, p0=0)
    producer = broker._broker.producer("open")
    producer.begin()
    producer.produce(ProduceBatch("t", [None], [b"v"], [NOW - 60_000], [0]))
    try:
        assert (lags.group("g")[0].records, lags.group("g")[0].seconds) == (0, 0.0)
    finally:
        producer.close()


def test_a_record_of_the_future_has_no_negative_lag(broker: Counting, lags: LagReader) -> None:
    produce(broker, 0, -3_600)
    commit(broker, p0=0)
    assert lags.group("g")[0].seconds == 0.0


def test_an_unmoved_commit_costs_no_second_read(broker: Counting, lags: LagReader) -> None:
    produce(broker, 0, 100, 50)
    commit(broker, p0=0)
    assert lags.group("g") == lags.group("g")
    assert broker.readers == 1
    commit(broker, p0=1)
    assert lags.group("g")[0].seconds == 50.0
    assert broker.readers == 2


class Scripted:
    """An admin of fixed answers."""

    def __init__(self, committed: int, start: int, end: int) -> None:
        self._committed, self._start, self._end = committed, start, end
        self.calls: list[str] = []

    def committed(self, _group: str) -> dict[TopicPartition, int]:
        self.calls.append("committed")
        return {P0: self._committed}

    def describe_group(self, _group: str) -> object:
        return type("Nobody", (), {"members": ()})()

    def topics(self) -> dict[str, int]:
        return {"t": 1}

    def offsets(self, partitions: list[TopicPartition], at: str, isolation: str = "") -> dict[TopicPartition, int]:
        self.calls.append(at)
        assert at != "latest" or isolation == "read_committed"
        return dict.fromkeys(partitions, self._start if at == "earliest" else self._end)

    def close(self) -> None:
        pass


class ScriptedBroker:
    name = "scripted"

    def __init__(self, admin: Scripted, timestamp: int = NOW - 7_000) -> None:
        self._admin, self._timestamp, self.read_from = admin, timestamp, -1

    def admin(self) -> Scripted:
        return self._admin

    def reader(self, offsets: Offsets, isolation: str = "read_committed") -> ScriptedBroker:
        assert isolation == "read_committed"
        self.read_from = offsets[P0]
        return self

    def poll(self, max_records: int, _timeout_s: float) -> list[object]:
        assert max_records == 1
        ones = np.array([self.read_from]), np.array([self._timestamp])
        return [RecordBatch("t", np.zeros(1, np.int64), *ones, [None], [b"v"])]

    def close(self) -> None:
        pass


def test_commits_are_read_before_ends_so_that_lag_is_never_negative() -> None:
    admin = Scripted(committed=5, start=0, end=3)
    lag = LagReader(ScriptedBroker(admin), lambda: NOW).group("g")[0]  # type: ignore[arg-type]  # the part it needs
    assert admin.calls.index("committed") < admin.calls.index("latest")
    assert (lag.records, lag.seconds) == (0, 0.0)


def test_what_retention_removed_is_lost_and_not_lag() -> None:
    broker = ScriptedBroker(Scripted(committed=10, start=100, end=130))
    lag = LagReader(broker, lambda: NOW).group("g")[0]  # type: ignore[arg-type]  # the part it needs
    assert broker.read_from == 100
    assert (lag.records, lag.lost, lag.seconds, lag.is_upper_bound) == (30, 90, 7.0, False)


def test_a_record_without_timestamp_has_an_unknown_lag_in_seconds() -> None:
    broker = ScriptedBroker(Scripted(committed=0, start=0, end=4), timestamp=-1)
    lag = LagReader(broker, lambda: NOW).group("g")[0]  # type: ignore[arg-type]  # the part it needs
    assert (lag.records, lag.seconds, lag.oldest_ms) == (4, None, None)


def exposed(monitor: LagMonitor) -> str:
    registry = CollectorRegistry()
    registry.register(monitor)
    return generate_latest(registry).decode()


def test_the_monitor_exports_the_owned_partitions_and_grows_between_reads(broker: Counting) -> None:
    produce(broker, 0, 100)
    produce(broker, 1, 100)
    commit(broker, p0=0, p1=0)
    now = NOW / 1000
    monitor = LagMonitor(broker, "g", lambda: {P1}, interval_s=0.01, wall_s=lambda: now)  # type: ignore[arg-type]  # as above
    monitor.start()
    try:
        wait_for(lambda: 'partition="1"' in exposed(monitor))
        now += 23
        text = exposed(monitor)
        assert 'streampipe_consumer_lag_seconds{group="g",partition="1",topic="t"} 123.0' in text
        assert 'partition="0"' not in text
        assert "streampipe_exporter_last_success_timestamp_seconds" in text
    finally:
        monitor.close()


def test_a_monitor_that_cannot_read_counts_errors_and_goes_on(broker: Counting) -> None:
    broker.gone = True
    heard: list[bool] = []
    monitor = LagMonitor(broker, "g", lambda: {P0}, interval_s=0.01, reachable=heard.append)  # type: ignore[arg-type]  # as above
    monitor.start()
    try:
        wait_for(lambda: "streampipe_exporter_errors_total 0" not in exposed(monitor))
        assert set(heard) == {False}
        commit(broker, p0=0)
        broker.gone = False
        wait_for(lambda: 'partition="0"' in exposed(monitor))
        assert heard[-1]
        broker.gone = True
        wait_for(lambda: not heard[-1])
        broker.gone = False
        wait_for(lambda: heard[-1])
    finally:
        monitor.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.kafka
def test_on_kafka_a_commit_marker_alone_is_no_lag(kafka_bootstrap: str) -> None:
    from streampipe.brokers.opening import open_broker

    kafka = open_broker(f"kafka:{kafka_bootstrap}")
    topic, group = f"lag-{time.time_ns()}", f"lag-{time.time_ns()}"
    at = TopicPartition(topic, 0)
    admin = kafka.admin()
    admin.create_topic(topic, 1)
    producer = kafka.producer(topic)
    now = time.time_ns() // 1_000_000
    for age_s in (60, 30):
        producer.begin()
        producer.produce(ProduceBatch(topic, [None], [b"v"], [now - age_s * 1000], [0]))
        producer.commit()
    producer.close()
    lags = LagReader(kafka, lambda: now)
    wait_for(lambda: has_coordinator(admin, group, at))
    admin.set_committed(group, {at: 1})  # behind the first record: its marker is at 1, the second record at 2
    behind = lags.group(group)[0]
    assert (behind.seconds, behind.is_upper_bound) == (30.0, True)
    admin.set_committed(group, {at: 3})  # nothing but the last marker is left
    lag = lags.group(group)[0]
    assert (lag.end, lag.records, lag.seconds) == (4, 0, 0.0)
    lags.close()
    admin.delete_topic(topic)
    admin.close()


def has_coordinator(admin: Admin, group: str, at: TopicPartition) -> bool:
    """A new Kafka node makes its offsets topic when it is first asked for one."""
    try:
        admin.set_committed(group, {at: 0})
    except StreampipeError as error:
        if "coordinator" not in str(error).lower():
            raise
        return False
    return True
