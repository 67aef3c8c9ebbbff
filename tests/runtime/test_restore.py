"""State comes back whole before its partitions go on, and never more or less of it."""

from __future__ import annotations

import pytest

from streampipe.brokers.port import Broker, Producer
from streampipe.clock import SystemClock
from streampipe.errors import StateCorrupted, Unavailable
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition
from streampipe.runtime.job import Job
from streampipe.runtime.port import Restore
from streampipe.runtime.restore import Restorer
from streampipe.runtime.session import Session
from tests.runtime.fakes import CountingTask, Log, Names, Watcher, fill, numbered, settings
from tests.runtime.faulty import Script, faulty
from tests.runtime.test_worker import worker_of


class Restoring(CountingTask):
    """Takes any restore, and keeps the offsets."""

    def __init__(self, names: Names, log: Log, failures: int = 0) -> None:
        super().__init__(names, log)
        self._failures = failures

    def restore(self, what: Restore, batch: RecordBatch) -> None:
        if self._failures:
            self._failures -= 1
            raise Unavailable("registry is down; start it")
        self.log.restored.extend((what.partition, offset) for offset in batch.offsets.tolist())


def write(producer: Producer, topic: str, partition: int, records: int) -> None:
    producer.produce(ProduceBatch(topic, [b"k"] * records, [b"1"] * records, partitions=[partition] * records))


def restorer_of(broker: Broker, watcher: Watcher | None = None, patience_s: float = 60.0) -> Restorer:
    return Restorer(broker, broker.admin(), watcher or Watcher(), SystemClock(), patience_s)


def finish(restorer: Restorer, task: CountingTask) -> None:
    while restorer.partitions:
        restorer.step(task)


def changelog(names: Names, partition: int, store: str = "count") -> Restore:
    return Restore(store, partition, TopicPartition(names.changelog, partition), "end")


def test_records_committed_above_an_open_transaction_are_restored_and_its_own_are_not(
    broker: Broker, names: Names
) -> None:
    crashed, later = broker.producer(f"{names.app}-crashed"), broker.producer(f"{names.app}-later")
    crashed.begin()
    write(crashed, names.changelog, 0, 3)
    crashed.flush()
    later.begin()
    write(later, names.changelog, 0, 4)
    later.commit()
    log = Log()
    restorer, task = restorer_of(broker), Restoring(names, log)
    restorer.add([changelog(names, 0)], {})
    for _ in range(10):
        restorer.step(task)
    assert restorer.partitions == {0}  # the transaction is still open
    assert log.restored == []
    crashed.abort()
    finish(restorer, task)
    assert len(log.restored) == 4
    crashed.close()
    later.close()


def test_a_changelog_that_ends_in_aborted_records_is_restored_to_its_end(broker: Broker, names: Names) -> None:
    producer = broker.producer(f"{names.app}-x")
    for ending in (producer.commit, producer.abort):
        producer.begin()
        write(producer, names.changelog, 1, 5)
        ending()
    log, watcher = Log(), Watcher()
    restorer = restorer_of(broker, watcher)
    restorer.add([changelog(names, 1), changelog(names, 2)], {})
    finish(restorer, Restoring(names, log))
    assert log.restored == [(1, offset) for offset in range(5)]
    assert sum(restored for _, restored, _ in watcher.restores) == 5
    producer.close()


def test_what_is_left_of_a_store_is_told_for_all_its_partitions_together(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampipe.runtime.restore.STEP_RECORDS", 3)
    producer = broker.producer()
    for partition in (0, 1):
        write(producer, names.changelog, partition, 10)
    producer.flush()
    watcher = Watcher()
    restorer = restorer_of(broker, watcher)
    restorer.add([changelog(names, 0), changelog(names, 1)], {})
    finish(restorer, Restoring(names, Log()))
    done = 0
    for _, restored, remaining in watcher.restores:
        done += restored
        assert done + remaining == 20
    assert len(watcher.restores) > 6
    producer.close()


def test_a_table_is_restored_up_to_the_committed_offset_only(broker: Broker, names: Names) -> None:
    producer = broker.producer()
    source = TopicPartition(names.table, 0)
    write(producer, names.table, 0, 10)
    producer.flush()
    log = Log()
    restorer = restorer_of(broker)
    restorer.add([Restore("table", 0, source, "committed")], {source: 7})
    finish(restorer, Restoring(names, log))
    assert log.restored == [(0, offset) for offset in range(7)]
    restorer = restorer_of(broker)
    restorer.add([Restore("table", 0, source, "committed")], {})
    finish(restorer, Restoring(names, log))
    assert len(log.restored) == 7  # nothing committed, nothing to restore
    producer.close()


def test_a_restore_that_does_not_move_is_a_loud_failure(broker: Broker, names: Names) -> None:
    producer = broker.producer(f"{names.app}-open")
    producer.begin()
    write(producer, names.changelog, 0, 2)
    producer.flush()
    restorer, task = restorer_of(broker, patience_s=0.3), Restoring(names, Log())
    restorer.add([changelog(names, 0)], {})
    with pytest.raises(StateCorrupted, match=r"changelog\[0\] at 0 of 2"):
        finish(restorer, task)
    producer.close()


def test_a_restore_goes_on_after_a_dependency_was_down(broker: Broker, names: Names) -> None:
    producer = broker.producer()
    write(producer, names.changelog, 0, 10)
    producer.flush()
    log = Log()
    restorer, task = restorer_of(broker), Restoring(names, log, failures=2)
    restorer.add([changelog(names, 0)], {})
    failures = 0
    while restorer.partitions:
        try:
            restorer.step(task)
        except Unavailable:
            failures += 1
    assert failures == 2
    assert log.restored == [(0, offset) for offset in range(10)]
    producer.close()


def test_dropped_restores_stop_and_the_others_go_on(broker: Broker, names: Names) -> None:
    producer = broker.producer()
    for partition in range(3):
        write(producer, names.changelog, partition, 10)
    producer.flush()
    log = Log()
    restorer, task = restorer_of(broker), Restoring(names, log)
    restorer.add([changelog(names, 0), changelog(names, 1)], {})
    restorer.drop([0])
    restorer.add([changelog(names, 2)], {})
    finish(restorer, task)
    assert sorted({partition for partition, _ in log.restored}) == [1, 2]
    producer.close()


def test_a_rebalance_in_the_middle_of_a_restore_takes_the_others_on_once_more(broker: Broker, names: Names) -> None:
    names = Names(names.app, repartitioned=True)
    fill(broker, names.input, numbered(10, 10))
    worker_of(broker, names, until_caught_up=True).run()
    script = Script()
    script.on("reader.poll", *[Unavailable("slow")] * 3)
    log = Log()
    admin = broker.admin()
    session = Session(Job(lambda: CountingTask(names, log), faulty(broker, script), settings(), names.app), admin)
    session.join()
    while script.calls["reader.poll"] < 3:
        try:
            session.step()
        except Unavailable:
            continue
    gone = [TopicPartition(names.input, 0)]
    session.on_revoked(gone)
    assert log.revoked == [gone[0], TopicPartition(names.repartition, 0)]
    while not session.quiet:
        session.step()
    restored = {partition for partition, _ in log.restored}
    assert restored == {0, 1, 2}
    session.close()
    admin.close()
