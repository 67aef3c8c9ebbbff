"""What was polled is processed in slices that take about a turn, and waits for what is unavailable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from streampipe.brokers.simulated import VirtualClock
from streampipe.errors import Unavailable
from streampipe.records import Record, RecordBatch, TopicPartition, batch_of
from streampipe.runtime.backlog import FIRST_SLICE, MAX_RETRY_S, TURN_S, Backlog, PollSize
from streampipe.runtime.time_order import TimeOrder
from tests.runtime.fakes import Watcher


def records(partition: int, count: int) -> RecordBatch:
    return batch_of([Record("in", partition, offset, 0, None, b"") for offset in range(count)])


def backlog(*batches: RecordBatch, batch_size: int = 10_000) -> tuple[Backlog, VirtualClock, Watcher]:
    clock, observer = VirtualClock(0), Watcher()
    made = Backlog(clock, observer, batch_size, TimeOrder([], lambda batch: batch.timestamps, lambda _: ()))
    made.add(batches)
    return made, clock, observer


def taking(clock: VirtualClock, each_s: float) -> Callable[[Sequence[RecordBatch]], None]:
    return lambda batches: clock.sleep_s(each_s * sum(map(len, batches)))


def unavailable(_: Sequence[RecordBatch]) -> None:
    raise Unavailable("the registry does not answer")


def test_slices_double_up_to_the_batch_size_while_they_are_quick() -> None:
    made, clock, _ = backlog(records(0, 5_000), batch_size=1_500)
    sizes = [len(batch) for batch, _ in made.turn(taking(clock, 0.0))]
    assert sizes == [FIRST_SLICE, 2 * FIRST_SLICE, 1_500, 1_500, 500]
    assert not made


def test_slow_slices_shrink_to_what_a_turn_takes_and_the_rest_waits_in_order() -> None:
    made, clock, _ = backlog(records(0, 1_000))
    slow = taking(clock, 0.01)
    first = [batch for batch, _ in made.turn(slow)]
    second = [batch for batch, _ in made.turn(slow)]
    assert [len(batch) for batch in first] == [FIRST_SLICE]
    assert [len(batch) for batch in second] == [int(TURN_S / 0.01)]
    assert second[0].offsets.tolist() == list(range(FIRST_SLICE, FIRST_SLICE + 100))
    assert sum(map(len, made.batches)) == 400


def test_what_is_unavailable_is_tried_again_later_and_later_with_the_same_records() -> None:
    made, clock, observer = backlog(records(0, 10))
    waits = []
    for _ in range(8):
        assert list(made.turn(unavailable)) == []
        waits.append(made.retry_at - clock.monotonic_s())
        assert list(made.turn(taking(clock, 0.0))) == [], "not before its time"
        clock.sleep_s(waits[-1] + 0.001)
    assert waits[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert waits[-1] == pytest.approx(MAX_RETRY_S)
    [(batch, _)] = made.turn(taking(clock, 0.0))
    assert batch.offsets.tolist() == list(range(10))
    assert made.retry_at == 0.0
    assert observer.reachable == [False] * 8 + [True]


def test_nothing_is_unavailable_any_more_when_what_waited_for_it_has_gone() -> None:
    made, clock, observer = backlog(records(0, 10))
    assert list(made.turn(unavailable)) == []
    made.let_go({TopicPartition("in", 0)})
    assert list(made.turn(taking(clock, 0.0))) == []
    assert made.retry_at == 0.0
    assert observer.reachable == [False, True]


def test_what_goes_takes_its_records_along_and_leaves_the_others() -> None:
    made, clock, _ = backlog(records(0, 3), records(1, 2))
    made.let_go({TopicPartition("in", 0)})
    assert [set(batch.partitions.tolist()) for batch, _ in made.turn(taking(clock, 0.0))] == [{1}]


def test_polls_are_halved_until_the_records_that_failed_are_committed() -> None:
    size = PollSize(1_000)
    assert size.narrow(100)
    assert size.limit == 50
    assert size.narrowed
    assert size.narrow(50)
    assert size.limit == 25
    size.committed(25)
    assert size.narrowed
    assert size.limit == 25
    size.committed(75)
    assert not size.narrowed
    assert size.limit == 1_000
    assert not size.narrow(1), "it was that record"
