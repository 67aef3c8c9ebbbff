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

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


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


@pytest.fixture
def parts() -> tuple[Time, Ends, IdlePartitions]:
    clock, ends = Time(), Ends()
    idle = IdlePartitions(cast("Admin", ends), clock, 30.0)
    for partition in (A0, A1, B0):
        idle.heard(partition)
    return clock, ends, idle


def test_silent_and_caught_up_partitions_are_idle(parts: tuple[Time, Ends, IdlePartitions]) -> None:
    clock, _, idle = parts
    clock.now = 29
    assert idle.look((), lambda _: 7) == {}
    clock.now = 30
    assert idle.look((), lambda _: 7) == {0: 30, 1: 30}
    assert idle.look((), lambda _: 7) == {}  # not again within a second


def test_one_topic_with_records_keeps_its_partition_number_awake(parts: tuple[Time, Ends, IdlePartitions]) -> None:
    clock, _, idle = parts
    clock.now = 20
    idle.heard(B0)
    clock.now = 31
    assert idle.look((), lambda _: 7) == {1: 31}
    idle.forget([B0])
    clock.now = 32
    assert idle.look((), lambda _: 7) == {0: 32, 1: 32}


def test_a_partition_that_is_behind_or_held_is_not_idle(parts: tuple[Time, Ends, IdlePartitions]) -> None:
    clock, ends, idle = parts
    ends.ends[A1] = 9
    clock.now = 31
    assert idle.look({B0}, lambda _: 7) == {}
    clock.now = 33
    assert idle.look((), lambda _: 7) == {}  # B0 counts from when it was held
    clock.now = 61
    assert idle.look((), lambda _: 7) == {0: 30}


def test_a_broker_that_does_not_answer_makes_nothing_idle(parts: tuple[Time, Ends, IdlePartitions]) -> None:
    clock, ends, idle = parts
    clock.now, ends.down = 31, True
    with pytest.raises(Unavailable):
        idle.look((), lambda _: 7)


def test_nothing_is_idle_when_no_silence_means_anything() -> None:
    clock, ends = Time(), Ends()
    ends.down = True  # nobody is even asked
    idle = IdlePartitions(cast("Admin", ends), clock, math.inf)
    idle.heard(A0)
    clock.now = 1e9
    assert idle.look((), lambda _: 7) == {}
