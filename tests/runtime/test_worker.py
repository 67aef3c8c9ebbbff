"""A worker on a broker: each record counted once, whatever moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from streampipe.brokers.port import Broker
from streampipe.policies import Guarantee
from streampipe.records import RecordBatch, TopicPartition
from streampipe.runtime import backlog, session
from streampipe.runtime.worker import Worker
from tests.runtime.fakes import (
    CountingTask,
    Flaky,
    Log,
    Names,
    Watcher,
    await_true,
    committed,
    fill,
    numbered,
    oracle,
    read,
    results,
    running,
    settings,
)


def worker_of(
    broker: Broker, names: Names, log: Log | None = None, watcher: Watcher | None = None, **options: Any
) -> Worker:
    changes = options.pop("settings", {})
    task = options.pop("task", None) or (lambda: CountingTask(names, log))
    return Worker(task, broker, settings(**changes), app_id=names.app, observer=watcher, **options)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_every_record_has_one_effect_and_every_offset_is_committed(
    broker: Broker, names: Names, guarantee: Guarantee
) -> None:
    rows = numbered(10, 50) | {b"k-bad": [b"bad1", b"good", b"bad2"]}
    fill(broker, names.input, rows)
    watcher = Watcher()
    worker_of(broker, names, watcher=watcher, settings={"guarantee": guarantee}, until_caught_up=True).run()
    assert results(broker, names) == oracle(rows)
    assert [r.value for r in read(broker, names.dlq)] == [b"bad1", b"bad2"]
    assert sum(committed(broker, names.app).values()) == 503
    assert sum(output.outcomes[names.input].sum() for output in watcher.outputs if output.outcomes) == 503
    assert watcher.produced_counts[names.dlq] == 2
    assert len(watcher.latencies[names.input]) == 503
    assert watcher.states[0] == "starting"
    assert watcher.states[-2:] == ["draining", "stopped"]


def test_output_streams_while_records_come_and_lag_reaches_zero(broker: Broker, names: Names) -> None:
    watcher = Watcher()
    with running(worker_of(broker, names, watcher=watcher, settings={"commit_interval_ms": 10})):
        for round_ in range(3):
            fill(broker, names.input, numbered(5, 4, start=round_ * 4))
            expected = oracle(numbered(5, 4 * round_ + 4))
            await_true(lambda expected=expected: results(broker, names) == expected)  # type: ignore[misc] # a default
        await_true(lambda: sum(committed(broker, names.app).values()) == 60)
    assert set(watcher.commits) == {"ok"}


def test_idle_input_opens_no_transactions(broker: Broker, names: Names) -> None:
    fill(broker, names.input, numbered(3, 3))
    watcher = Watcher()
    with running(worker_of(broker, names, watcher=watcher, settings={"commit_interval_ms": 10})):
        await_true(lambda: sum(committed(broker, names.app).values()) == 9)
        seen = len(watcher.oldest)
        before = len(watcher.commits)
        await_true(lambda: len(watcher.oldest) > seen + 10)
        assert len(watcher.commits) <= before + 1
        assert set(watcher.oldest[-1].values()) == {None}


def test_long_commit_intervals_hold_output_in_memory_and_commit_all_at_the_stop(broker: Broker, names: Names) -> None:
    rows = numbered(4, 25)
    fill(broker, names.input, rows)
    log, watcher = Log(), Watcher()
    changes = {"commit_interval_ms": 300_000, "transaction_timeout_ms": 15_000}
    with running(worker_of(broker, names, log, watcher, settings=changes)):
        await_true(lambda: len(log.processed) == 100)
        assert watcher.commits == []
    assert results(broker, names) == oracle(rows)
    assert watcher.commits == ["ok"]


def test_state_is_restored_by_the_next_worker(broker: Broker, names: Names) -> None:
    first, second = numbered(8, 10), numbered(8, 10, start=10)
    fill(broker, names.input, first)
    worker_of(broker, names, until_caught_up=True).run()
    fill(broker, names.input, second)
    log, watcher = Log(), Watcher()
    worker_of(broker, names, log, watcher, until_caught_up=True).run()
    assert log.restored
    assert len(log.processed) == 80
    assert results(broker, names) == oracle(numbered(8, 20))
    assert "restoring" in watcher.states
    assert watcher.restores[-1][2] == 0


def test_a_stopped_worker_leaves_nothing_to_repeat(broker: Broker, names: Names) -> None:
    rows = numbered(10, 300)
    fill(broker, names.input, rows)
    logs = [Log(), Log()]
    with running(worker_of(broker, names, logs[0], settings={"batch_size": 100, "commit_interval_ms": 60_000})):
        await_true(lambda: len(logs[0].processed) >= 300)
    worker_of(broker, names, logs[1], until_caught_up=True).run()
    assert len(logs[0].processed) + len(logs[1].processed) == 3000
    assert results(broker, names) == oracle(rows)


def test_an_abandoned_worker_commits_nothing(broker: Broker, names: Names) -> None:
    fill(broker, names.input, numbered(3, 3))
    log = Log()
    worker = worker_of(broker, names, log, settings={"commit_interval_ms": 60_000, "transaction_timeout_ms": 600_000})
    with running(worker):
        await_true(lambda: len(log.processed) == 9)
        worker.abandon()
    assert committed(broker, names.app) == {}
    assert read(broker, names.out) == []


def test_until_stops_at_the_given_offsets(broker: Broker, names: Names) -> None:
    fill(broker, names.input, numbered(30, 20))
    ends = {TopicPartition(names.input, n): 5 + n for n in range(3)}
    log = Log()
    worker_of(broker, names, log, until=ends).run()
    assert {(p, o) for _, p, o in log.processed} == {(n, o) for n in range(3) for o in range(5 + n)}
    assert committed(broker, names.app) == ends


def test_a_repartition_topic_runs_dry_before_the_end(broker: Broker, names: Names) -> None:
    names = Names(names.app, repartitioned=True)
    rows = numbered(20, 20)
    fill(broker, names.input, rows)
    log = Log()
    worker_of(broker, names, log, until_caught_up=True, close_windows=True).run()
    assert results(broker, names) == oracle(rows)
    assert len(log.processed) == 800
    assert log.closed == 1
    assert [r.value for r in read(broker, names.out) if r.key == b"closed"] == [b"closed"]


def test_two_workers_share_the_partitions_and_finish_together(broker: Broker, names: Names) -> None:
    names = Names(names.app, repartitioned=True)
    rows = numbered(20, 50)
    fill(broker, names.input, rows)
    logs = [Log(), Log()]
    workers = [
        worker_of(broker, names, logs[n], slot=n, until_caught_up=True, settings={"batch_size": 50}) for n in (0, 1)
    ]
    with running(workers[0]) as one, running(workers[1]) as two:
        one.join(60)
        two.join(60)
    assert results(broker, names) == oracle(rows)


def test_workers_hand_over_without_repeating_or_losing(broker: Broker, names: Names) -> None:
    rows = numbered(12, 100)
    logs = [Log() for _ in range(3)]
    watchers = [Watcher() for _ in range(3)]

    def make(n: int) -> Worker:
        return worker_of(broker, names, logs[n], watchers[n], slot=n, settings={"batch_size": 40})

    with running(make(0)):
        fill(broker, names.input, numbered(12, 40))
        await_true(lambda: len(logs[0].processed) > 100)
        with running(make(1)):
            await_true(lambda: "revoked" in watchers[0].moves and "assigned" in watchers[1].moves)
            fill(broker, names.input, numbered(12, 40, start=40))
            await_true(lambda: logs[1].processed)
        fill(broker, names.input, numbered(12, 20, start=80))
        with running(make(2)):
            await_true(lambda: sum(committed(broker, names.app).values()) >= 1200 and logs[2].tasks)
    assert results(broker, names) == oracle(rows)
    if broker.name.startswith("local"):  # Kafka counts up the generation before its members know, and refuses then
        assert [log.tasks for log in logs] == [1, 1, 1]  # no state was thrown away


def test_partitions_move_only_after_their_work_is_committed(broker: Broker, names: Names) -> None:
    rows = numbered(12, 40)
    fill(broker, names.input, rows)
    logs, watchers = [Log(), Log()], [Watcher(), Watcher()]

    def make(n: int) -> Worker:
        return worker_of(broker, names, logs[n], watchers[n], slot=n, settings={"commit_interval_ms": 600_000})

    with running(make(0)):
        await_true(lambda: len(logs[0].processed) == 480)
        assert committed(broker, names.app) == {}
        with running(make(1)):
            await_true(lambda: "running" in watchers[1].states[-1:] and "assigned" in watchers[1].moves)
            assert sum(committed(broker, names.app).values()) == 480
    assert watchers[0].commits == ["ok"]
    assert len(logs[0].processed) + len(logs[1].processed) == 480
    assert logs[0].tasks == 1
    assert results(broker, names) == oracle(rows)


def test_a_dependency_that_is_down_holds_the_batch_and_nothing_is_dead_lettered(broker: Broker, names: Names) -> None:
    down = threading.Event()
    down.set()
    log, watcher = Log(), Watcher()
    fill(broker, names.input, numbered(5, 10))
    with running(worker_of(broker, names, watcher=watcher, task=lambda: Flaky(names, log, down))):
        await_true(lambda: False in watcher.reachable)
        fill(broker, names.input, numbered(5, 10, start=10))
        assert committed(broker, names.app) == {}
        down.clear()
        await_true(lambda: sum(committed(broker, names.app).values()) >= 100)
    assert results(broker, names) == oracle(numbered(5, 20))
    assert watcher.reachable[-1] is True
    assert log.tasks == 1
    assert read(broker, names.dlq) == []


def test_stream_records_wait_for_the_table_of_their_partition(broker: Broker, names: Names) -> None:
    fill(broker, names.input, numbered(30, 10))
    fill(broker, names.table, numbered(30, 100))
    log = Log()
    changes = {"batch_size": 100}

    def task() -> CountingTask:
        return CountingTask(names, log, tables=True)

    worker_of(broker, names, task=task, settings=changes, until_caught_up=True).run()
    for number in range(3):
        topics = [topic for topic, partition, _ in log.processed if partition == number]
        assert topics == sorted(topics, key=lambda topic: topic == names.input)
    assert len(log.processed) == 3300
    with running(worker_of(broker, names, task=task)):
        # The table's rows below the committed offset, and the counts.
        await_true(lambda: len(log.restored) > 3000)
    assert len(log.processed) == 3300


def test_global_tables_are_whole_before_the_first_record_and_followed(broker: Broker, names: Names) -> None:
    fill(broker, names.everywhere, {b"a": [b"1", b"bad"], b"b": [b"2"]})
    fill(broker, names.input, numbered(3, 1))
    log = Log()
    seen: list[int] = []

    class Joining(CountingTask):
        def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
            seen.append(len(self.log.loaded))
            super().process(batches, now_ms)

    with running(worker_of(broker, names, task=lambda: Joining(names, log, global_tables=True))):
        await_true(lambda: log.processed)
        fill(broker, names.everywhere, {b"c": [b"3"]})
        await_true(lambda: b"3" in log.loaded)
    assert seen[0] == 3
    assert names.everywhere not in {tp.topic for tp in committed(broker, names.app)}


def test_quiet_partitions_follow_the_clock_and_a_replay_is_told_no_time(broker: Broker, names: Names) -> None:
    fill(broker, names.input, numbered(3, 1))
    live, replay = Log(), Log()

    class Impatient(CountingTask):
        idle_after_s = 0.3

    with running(worker_of(broker, names, task=lambda: Impatient(names, live))):
        await_true(lambda: {0, 1, 2} in live.advanced)
    assert None not in live.told_times
    fill(broker, names.input, numbered(3, 1))
    with running(worker_of(broker, names, task=lambda: Impatient(names, replay), replay=True)):
        await_true(lambda: len(replay.processed) == 3)
    assert set(replay.told_times) == {None}


def test_much_uncommitted_work_is_committed_before_its_time(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_UNCOMMITTED", 50)
    fill(broker, names.input, numbered(10, 30))
    watcher = Watcher()
    changes = {"batch_size": 20, "commit_interval_ms": 600_000}
    with running(worker_of(broker, names, watcher=watcher, settings=changes)):
        await_true(lambda: sum(committed(broker, names.app).values()) >= 250)
    assert results(broker, names) == oracle(numbered(10, 30))


def test_a_slow_task_gets_slices_and_stops_in_between(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "TURN_S", 0.05)
    monkeypatch.setattr(backlog, "FIRST_SLICE", 8)
    log = Log()
    sizes: list[int] = []

    class Slow(CountingTask):
        def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
            sizes.append(sum(map(len, batches)))
            time.sleep(0.01 * sizes[-1])
            super().process(batches, now_ms)

    rows = numbered(1, 400)
    fill(broker, names.input, rows)
    with running(worker_of(broker, names, task=lambda: Slow(names, log), settings={"commit_interval_ms": 10})):
        await_true(lambda: sum(committed(broker, names.app).values()) > 20)
    assert max(sizes) <= 16
    assert len(log.processed) < 400
    assert sum(committed(broker, names.app).values()) == len(log.processed)
    assert results(broker, names) == oracle({b"k0": rows[b"k0"][: len(log.processed)]})
