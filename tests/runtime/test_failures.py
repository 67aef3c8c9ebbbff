"""What goes wrong between poll and commit never shows in the results."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from streampipe.brokers.local import LocalBroker
from streampipe.brokers.port import Broker
from streampipe.clock import SystemClock
from streampipe.errors import ClientLost, Fenced, ProcessingStopped, StateLost, TransactionAborted, Unavailable
from streampipe.policies import Guarantee
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition
from streampipe.runtime import worker
from streampipe.runtime.job import Job
from streampipe.runtime.port import TaskOutput
from streampipe.runtime.session import Session
from streampipe.runtime.worker import MAX_REJOINS
from tests.runtime.fakes import (
    CountingTask,
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
from tests.runtime.faulty import After, Script, faulty
from tests.runtime.test_worker import worker_of

ROWS = numbered(10, 30) | {b"k-bad": [b"bad"]}


class SkippingClock(SystemClock):
    """Time for intervals and deadlines may skip ahead."""

    skipped_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.skipped_s


def run_with(
    script: Script, broker: Broker, names: Names, guarantee: Guarantee = "exactly-once"
) -> tuple[Log, Watcher]:
    fill(broker, names.input, ROWS)
    log, watcher = Log(), Watcher()
    changes = {"guarantee": guarantee, "batch_size": 100}
    worker_of(faulty(broker, script), names, log, watcher, settings=changes, until_caught_up=True).run()
    return log, watcher


@pytest.mark.parametrize("method", ["producer.produce", "producer.send_offsets", "producer.commit"])
@pytest.mark.parametrize(
    "error", [TransactionAborted("gone"), Fenced("newer"), Unavailable("silence")], ids=["aborted", "fenced", "silent"]
)
def test_a_failure_between_begin_and_commit_leaves_no_trace(
    broker: Broker, names: Names, method: str, error: Exception
) -> None:
    fill(broker, names.input, numbered(10, 10, start=-10))
    worker_of(broker, names, until_caught_up=True).run()
    script = Script()
    script.on(method, error)
    log, watcher = run_with(script, broker, names)
    assert results(broker, names) == oracle(numbered(10, 40, start=-10) | {b"k-bad": [b"bad"]})
    assert len(read(broker, names.dlq)) == 1
    assert log.tasks >= 3  # a look at the topology, the first task, and the one after it was thrown away
    assert len(log.restored) >= 20  # by both tasks
    assert sum(output.outcomes[names.input].sum() for output in watcher.outputs if output.outcomes) == 301


def test_a_commit_whose_answer_was_lost_is_not_repeated(broker: Broker, names: Names) -> None:
    script = Script()
    script.on("producer.commit", After(Unavailable("silence")))
    _, watcher = run_with(script, broker, names)
    assert results(broker, names) == oracle(ROWS)
    assert watcher.commits[0] == "error"
    assert script.calls["broker.producer"] == 2


def test_refused_offsets_rewind_without_leaving_the_group(broker: Broker, names: Names) -> None:
    script = Script()
    script.on("producer.send_offsets", Fenced("rebalance"))
    _, watcher = run_with(script, broker, names)
    assert watcher.commits[0] == "rebalance"
    assert script.calls["broker.consumer"] == script.calls["broker.producer"] == 1


@pytest.mark.parametrize("error", [TransactionAborted("gone"), Unavailable("silence"), After(Unavailable("silence"))])
def test_a_stop_whose_last_commit_fails_leaves_its_work_to_the_next_worker(
    broker: Broker, names: Names, error: Exception | After
) -> None:
    fill(broker, names.input, ROWS)
    log, watcher, script = Log(), Watcher(), Script()
    script.on("producer.commit", error)
    # twelve seconds: output waits in memory and nothing is committed before the stop
    with running(worker_of(faulty(broker, script), names, log, watcher, settings={"commit_interval_ms": 12_000})):
        await_true(lambda: len(log.processed) == 301)
    assert watcher.states[-1] == "stopped"
    assert isinstance(error, After) == bool(committed(broker, names.app))
    worker_of(broker, names, until_caught_up=True).run()
    assert results(broker, names) == oracle(ROWS)


def test_a_fenced_producer_joins_anew_three_times_and_then_gives_up(broker: Broker, names: Names) -> None:
    script = Script()
    script.on("producer.commit", *[Fenced("another one")] * (MAX_REJOINS + 1))
    with pytest.raises(Fenced, match="another one"):
        run_with(script, broker, names)
    assert script.calls["broker.consumer"] == MAX_REJOINS + 1
    assert committed(broker, names.app) == {}


@pytest.mark.parametrize("times", [MAX_REJOINS, MAX_REJOINS + 1])
def test_a_worker_whose_state_is_damaged_starts_over_three_times_in_its_group_and_then_gives_up(
    broker: Broker, names: Names, times: int
) -> None:
    script = Script()
    script.on("consumer.poll", *[None, StateLost("a damaged block")] * times)
    with pytest.raises(StateLost, match="a damaged block") if times > MAX_REJOINS else nullcontext():
        run_with(script, broker, names)
    assert script.calls["broker.consumer"] == 1
    assert times > MAX_REJOINS or results(broker, names) == oracle(ROWS)


def test_a_session_that_nothing_works_in_starts_over_with_another_producer(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "UNAVAILABLE_S", 0.3)
    script = Script()
    held = [Unavailable("offsets wait for a transaction that nobody ends")] * 1_000
    script.on("consumer.committed", *held)

    def ended() -> None:
        if script.calls["broker.producer"] > 1:
            script.forget("consumer.committed")

    script.before("broker.producer", ended)
    run_with(script, broker, names)
    assert script.calls["broker.producer"] == 2
    assert script.calls["broker.consumer"] == 1
    assert results(broker, names) == oracle(ROWS)


def test_a_member_whose_client_is_lost_joins_anew_as_often_as_it_takes(broker: Broker, names: Names) -> None:
    script = Script()
    script.on("consumer.poll", *[None, ClientLost("lost its brokers")] * (MAX_REJOINS + 2))
    run_with(script, broker, names)
    assert script.calls["broker.consumer"] == MAX_REJOINS + 3
    assert results(broker, names) == oracle(ROWS)


def test_at_least_once_repeats_after_a_failure_and_loses_nothing(broker: Broker, names: Names) -> None:
    script = Script()
    script.on("producer.flush", None, Unavailable("silence"), None, TransactionAborted("refused"))
    run_with(script, broker, names, "at-least-once")
    echoes = {pair for pair in results(broker, names) if not pair[0].startswith(b"count:")}
    assert echoes == {pair for pair in oracle(ROWS) if not pair[0].startswith(b"count:")}
    assert sum(committed(broker, names.app).values()) == 301


def test_a_broker_that_is_away_for_a_while_costs_no_state(
    broker: Broker, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    script.on("consumer.poll", *[None] * 3, *[Unavailable("no broker")] * 4)
    script.on("consumer.committed", Unavailable("no broker"))
    with caplog.at_level(logging.WARNING):
        log, watcher = run_with(script, broker, names)
    assert results(broker, names) == oracle(ROWS)
    assert log.tasks == 2
    assert watcher.reachable[:2] == [False, True]
    assert 1 <= sum("no broker" in line for line in caplog.messages) <= 3


def test_a_broker_that_is_away_at_the_start_is_an_error_after_a_while(broker: Broker, names: Names) -> None:
    script = Script()
    script.on("broker.admin", *[Unavailable("no broker")] * 1000)
    with pytest.raises(Unavailable, match="no broker"):
        worker_of(faulty(broker, script), names, start_patience_s=0.3).run()
    assert script.calls["broker.admin"] > 2


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_a_record_whose_output_is_too_large_stops_the_worker_at_that_record(
    broker: Broker, names: Names, guarantee: Guarantee
) -> None:
    admin = broker.admin()
    admin.delete_topic(names.out)
    small = Names(names.app + "s")
    admin.create_topic(small.out, 3, {"max.message.bytes": "2000"})
    admin.close()
    small.create(broker)
    producer = broker.producer()
    values = [b"%d" % n for n in range(100)]
    values[60] = b"x" * 5000
    producer.produce(ProduceBatch(small.input, [b"k"] * 100, values, partitions=[1] * 100))
    producer.flush()
    producer.close()
    with pytest.raises(ProcessingStopped, match=r"in\[1\] 60\.\.60: .*tried 3 times") as stopped:
        worker_of(broker, small, settings={"guarantee": guarantee}).run()
    assert "\n" not in str(stopped.value)
    assert committed(broker, small.app) == {TopicPartition(small.input, 1): 60}
    if guarantee == "exactly-once":
        assert results(broker, small) == oracle({b"k": values[:60]})


def test_a_stop_by_policy_commits_nothing_past_the_record(broker: Broker, names: Names) -> None:
    class Stopping(CountingTask):
        def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
            super().process(batches, now_ms)
            raise ProcessingStopped("flights[0] offset 7: fatal")

    fill(broker, names.input, ROWS)
    watcher = Watcher()
    with pytest.raises(ProcessingStopped):
        worker_of(broker, names, watcher=watcher, task=lambda: Stopping(names)).run()
    assert committed(broker, names.app) == {}
    assert read(broker, names.out) == []
    assert watcher.states[-1] == "failed"


def test_partitions_that_were_lost_are_never_committed(tmp_path: Path) -> None:
    path, names = tmp_path / "broker.db", Names("app")
    clock = SkippingClock()
    broker, other = LocalBroker(path, clock=clock), LocalBroker(path)
    names.create(broker)
    fill(broker, names.input, ROWS)
    logs, watcher = [Log(), Log()], Watcher()
    slow = threading.Event()

    class Slow(CountingTask):
        def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
            super().process(batches, now_ms)
            if not slow.is_set():
                slow.set()
                clock.skipped_s += 1000  # more than the max poll interval
                await_true(lambda: len(set(logs[1].processed)) == 301, 40)  # somebody else took over meanwhile

    with running(worker_of(broker, names, watcher=watcher, task=lambda: Slow(names, logs[0]))):
        assert slow.wait(20)
        with running(worker_of(other, names, logs[1], slot=1)):
            await_true(lambda: sum(committed(broker, names.app).values()) == 301, 40)
            await_true(lambda: "lost" in watcher.moves or "rebalance" in watcher.commits)
            fill(broker, names.input, numbered(10, 5, start=30))
            await_true(lambda: sum(committed(broker, names.app).values()) == 351)
    assert results(broker, names) == oracle(numbered(10, 35) | {b"k-bad": [b"bad"]})


def test_revoking_commits_what_is_processed_and_nothing_else(broker: Broker, names: Names) -> None:
    fill(broker, names.input, numbered(6, 10))
    log = Log()
    admin = broker.admin()
    job = Job(lambda: CountingTask(names, log), broker, settings(commit_interval_ms=3_000_000), names.app)
    session = Session(job, admin)
    session.join()
    while len(log.processed) < 60:
        session.step()
    assert committed(broker, names.app) == {}
    partitions = sorted(session.consumer.assignment())
    session.on_revoked(partitions[:1])
    assert sum(committed(broker, names.app).values()) == 60
    assert log.revoked == partitions[:1]
    session.close()
    admin.close()


def test_the_oldest_uncommitted_record_is_told(broker: Broker, names: Names) -> None:
    fill(broker, names.input, {b"k": [b"1"]}, timestamp=77)
    watcher = Watcher()
    with running(worker_of(broker, names, watcher=watcher)):
        await_true(lambda: any(77 in told.values() for told in watcher.oldest))
        await_true(lambda: set(watcher.oldest[-1].values()) == {None})


def test_output_of_a_closed_worker_without_a_commit_never_shows(broker: Broker, names: Names) -> None:
    class Broken(CountingTask):
        def drain(self) -> TaskOutput:
            raise ZeroDivisionError("a bug")

    fill(broker, names.input, ROWS)
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        worker_of(broker, names, task=lambda: Broken(names), settings={"commit_interval_ms": 500}).run()
    assert read(broker, names.out) == []
    assert committed(broker, names.app) == {}
    assert time.monotonic() - started < 30
