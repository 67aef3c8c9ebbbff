"""What counts as standing still."""

from __future__ import annotations

from streampipe.brokers.local import LocalBroker
from streampipe.records import TopicPartition
from tests.chaos.watch import Watch, gaps_s

ONE, TWO = TopicPartition("in", 0), TopicPartition("in", 1)


def watched(*looks: tuple[float, dict[TopicPartition, int], dict[TopicPartition, int]]) -> Watch:
    watch = Watch(LocalBroker(":memory:"), "group", [ONE, TWO])
    for now_s, committed, ends in looks:
        watch.look(now_s, committed, ends)
    return watch


def test_a_partition_stands_still_from_its_last_commit_to_the_next_while_there_is_something_to_do() -> None:
    watch = watched((1, {ONE: 5}, {ONE: 9}), (2, {ONE: 5}, {ONE: 9}), (6, {ONE: 9}, {ONE: 9}))
    assert [stall.length_s for stall in watch.stalls[1:]] == [5]


def test_a_partition_without_anything_to_do_does_not_stand_still() -> None:
    watch = watched((1, {}, {TWO: 0}), (50, {}, {TWO: 0}), (51, {}, {TWO: 3}), (53, {TWO: 3}, {TWO: 3}))
    assert [stall.length_s for stall in watch.stalls] == [3]


def test_a_gap_is_from_the_last_kill_within_it_to_progress() -> None:
    watch = watched((1, {ONE: 5}, {ONE: 9}), (2, {TWO: 1}, {TWO: 9}), (9, {ONE: 6, TWO: 2}, {ONE: 9, TWO: 9}))
    both = watch.stalls[2:]
    assert gaps_s(both, [1.5, 4]) == [5, 5]
    assert gaps_s(both, [1.5]) == [7.5]
    assert gaps_s(both, [9.5]) == []
