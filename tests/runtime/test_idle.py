"""A partition is idle when it is silent and caught up, not when nobody can tell."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import cast

import pytest

from streampipe.brokers.port import Admin
from streampipe.errors import Unavailable
from streampipe.records import TopicPartition
from streampipe.runtime.idle import IdlePartitions
from streampipe.runtime.port import SubTopology

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
BOTH = SubTopology(("a",), ("b",))
A, B, FED = SubTopology(("a",), ()), SubTopology(("b",), ()), SubTopology(("b",), (), before=("a",))


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic_s(self) -> float:
        return self.now

    def sleep_s(self, seconds: float) -> None:
        self.now += seconds


class Ends:
    def __init__(self) -> None:
        self.ends = dict.fromkeys((A0, A1, B0), 7)
        self.down = False

    def offsets(self, partitions: Collection[TopicPartition], _at: str) -> dict[TopicPartition, int]:
        if self.down:
            raise Unavailable("no broker")
        return {tp: self.ends[tp] for tp in partitions}


def watching(*subtopologies: SubTopology, after_s: float = 30.0) -> tuple[Time, Ends, IdlePartitions]:
    clock, ends = Time(), Ends()
    idle = IdlePartitions(cast("Admin", ends), clock, after_s, subtopologies)
    for partition in (A0, A1, B0):
        idle.heard(partition)
    return clock, ends, idle


@pytest.fixture
def parts() -> tuple[Time, Ends, IdlePartitions]:
    return watching(BOTH)


def test_silent_and_caught_up_partitions_are_idle(parts: tuple[Time, Ends, IdlePartitions]) -> None:
    clock, _, idle = parts
    clock.now = 29
    assert idle.look((), lambda _: 7) == {}
    clock.now = 30
    assert idle.look((), lambda _: 7) == {BOTH: {0: 30, 1: 30}}
    assert idle.look((), lambda _: 7) == {}  # not again within a second


def test_one_input_with_records_keeps_a_partition_of_its_sub_topology_awake(
    parts: tuple[Time, Ends, IdlePartitions],
) -> None:
    clock, _, idle = parts
    clock.now = 20
    idle.heard(B0)
    clock.now = 31
    assert idle.look((), lambda _: 7) == {BOTH: {1: 31}}
    idle.forget([B0])
    clock.now = 32
    assert idle.look((), lambda _: 7) == {BOTH: {0: 32, 1: 32}}


def test_sub_topologies_are_idle_each_for_itself() -> None:
    clock, ends, idle = watching(A, B)
    clock.now = 20
    idle.heard(A0)
    clock.now = 31
    assert idle.look((), lambda _: 7) == {A: {1: 31}, B: {0: 31}}
    ends.ends[A0], clock.now = 9, 60
    assert idle.look((), lambda _: 7) == {A: {1: 60}, B: {0: 60}}
    clock.now = 70
    assert idle.look({B0}, lambda _: 7) == {A: {1: 70}}


def test_a_sub_topology_is_awake_while_others_read_what_may_come_to_it() -> None:
    clock, ends, idle = watching(A, FED)
    clock.now = 20
    idle.heard(A0)
    clock.now = 31
    assert idle.look((), lambda _: 7) == {A: {1: 31}, FED: {1: 31}}
    ends.ends[A0], clock.now = 9, 60
    assert idle.look((), lambda _: 7) == {A: {1: 60}, FED: {1: 60}}
    ends.ends[A0], clock.now = 7, 62
    assert idle.look((), lambda _: 7) == {A: {0: 42, 1: 62}, FED: {0: 42, 1: 62}}


def test_what_waits_for_the_clock_itself_is_idle_at_once_when_it_is_caught_up() -> None:
    clock, ends, idle = watching(A, after_s=0.0)
    clock.now, ends.ends[A1] = 2, 9
    idle.heard(A0)
    assert idle.look((), lambda _: 7) == {A: {0: 0}}
    clock.now = 4
    assert idle.look({A0}, lambda _: 7) == {}


def test_a_partition_that_is_behind_or_held_is_not_idle(parts: tuple[Time, Ends, IdlePartitions]) -> None:
    clock, ends, idle = parts
    ends.ends[A1] = 9
    clock.now = 31
    assert idle.look({B0}, lambda _: 7) == {}
    clock.now = 33
    assert idle.look((), lambda _: 7) == {}  # B0 counts from when it was held
    clock.now = 61
    assert idle.look((), lambda _: 7) == {BOTH: {0: 30}}


def test_a_broker_that_does_not_answer_makes_nothing_idle(parts: tuple[Time, Ends, IdlePartitions]) -> None:
    clock, ends, idle = parts
    clock.now, ends.down = 31, True
    with pytest.raises(Unavailable):
        idle.look((), lambda _: 7)


def test_nothing_is_idle_when_no_silence_means_anything() -> None:
    clock, ends, idle = watching(BOTH, after_s=math.inf)
    ends.down = True  # nobody is even asked
    clock.now = 1e9
    assert idle.look((), lambda _: 7) == {}
