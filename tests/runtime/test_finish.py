"""The finish line is seen only when nothing is left, however deep the processor's own topics go."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from streampipe.brokers.port import Admin, At, Broker, Isolation, TopicInfo
from streampipe.brokers.simulated import VirtualClock
from streampipe.records import TopicPartition
from streampipe.runtime.finish import MARKERS_S, FinishLine, caught_up, is_repartition
from tests.brokers.helpers import Lab, batch, eventually

APP = "app"


class Chain:
    """An input and the repartition topics behind it, one partition each; work goes on between any two calls."""

    def __init__(self, ends: list[int], steps: list[int], gives: list[int]) -> None:
        self.topics = ["in", *(f"{APP}-{n}-repartition" for n in range(len(ends) - 1))]
        self.ends = ends
        self.done = [0] * len(ends)
        self._steps, self._gives = steps, gives

    def work(self) -> None:
        """A worker commits one record of some topic, and with it what the record gave to the next topic."""
        for level in (self._steps.pop() % len(self.ends) for _ in range(min(2, len(self._steps)))):
            if self.done[level] < self.ends[level]:
                self.done[level] += 1
                if level + 1 < len(self.ends) and self._gives:
                    self.ends[level + 1] += self._gives.pop()

    def describe_topic(self, topic: str) -> TopicInfo:
        return TopicInfo(topic, 1)

    def offsets(
        self, partitions: Collection[TopicPartition], at: At, isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        self.work()
        return {tp: 0 if at == "earliest" else self.ends[self.topics.index(tp.topic)] for tp in partitions}

    def committed(self, group: str) -> dict[TopicPartition, int]:
        self.work()
        return {TopicPartition(topic, 0): done for topic, done in zip(self.topics, self.done, strict=True) if done}


@given(
    ends=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    steps=st.lists(st.integers(0, 10), max_size=300),
    gives=st.lists(st.integers(0, 2), max_size=40),
)
def test_reached_means_that_nothing_is_left_on_any_level(ends: list[int], steps: list[int], gives: list[int]) -> None:
    chain = Chain(ends, steps, gives)
    line = caught_up(cast("Admin", chain), VirtualClock(0), APP, chain.topics)
    for _ in range(50):
        if line.reached():
            assert chain.done == chain.ends
            return
        chain.work()
    assert chain.done != chain.ends or len(ends) == 0


def test_offsets_that_retention_removed_count_as_done() -> None:
    class Expired(Chain):
        def offsets(
            self, partitions: Collection[TopicPartition], at: At, isolation: Isolation = "read_committed"
        ) -> dict[TopicPartition, int]:
            return dict.fromkeys(partitions, 5)

    line = FinishLine(cast("Admin", Expired([5], [], [])), APP, {TopicPartition("in", 0): 5}, ["in"])
    assert line.reached()


def test_only_the_processors_own_repartition_topics_are_internal() -> None:
    assert is_repartition("app-key-by-1-repartition", APP)
    assert not is_repartition("other-key-by-1-repartition", APP)
    assert not is_repartition("app-count-changelog", APP)


class ActingClock(VirtualClock):
    """Does something whenever somebody sleeps."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(0)
        self._act = act

    def sleep_s(self, seconds: float) -> None:
        super().sleep_s(seconds)
        self._act()


def test_what_is_written_in_a_transaction_that_is_about_to_end_is_before_the_finish_line(broker: Broker) -> None:
    with Lab(broker) as lab:
        topic = lab.topic()
        place = TopicPartition(topic, 0)
        producer = lab.producer(topic)
        producer.begin()
        producer.produce(batch(topic, b"one", b"two"))
        producer.flush()
        commits = [producer.commit]

        def commit() -> None:
            if commits:
                commits.pop()()
                eventually(lambda: lab.admin.offsets([place], "latest")[place] > 0, "its marker was written")

        line = caught_up(lab.admin, ActingClock(commit), APP, [topic])
        assert not commits
        assert not line.reached()


def test_a_transaction_that_stays_open_is_left_to_the_next_run(broker: Broker) -> None:
    with Lab(broker) as lab:
        topic = lab.topic()
        producer = lab.producer(topic)
        producer.begin()
        producer.produce(batch(topic, b"one"))
        producer.flush()
        clock = VirtualClock(0)
        assert caught_up(lab.admin, clock, APP, [topic]).reached()
        assert clock.monotonic_s() >= MARKERS_S
