"""A rebalance in the middle of a poll of many chunks: what that poll has not handed over yet is not consumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from streampipe.brokers.kafka import KafkaBroker
from streampipe.brokers.kafka.reader import CHUNK
from streampipe.records import TopicPartition, records_of
from tests.brokers.helpers import Lab, eventually, numbered, unique, until

pytestmark = pytest.mark.kafka


def test_positions_committed_while_revoked_lose_nothing_that_the_same_poll_had_fetched(kafka_bootstrap: str) -> None:
    with Lab(KafkaBroker(kafka_bootstrap, {"partition.assignment.strategy": "range"})) as lab:  # takes all away
        topic, group, each = lab.topic(2), unique("group"), 2 * CHUNK
        first = lab.member(group, topic)
        until([first], lambda: len(first.owned()) == 2, "both partitions are assigned")
        lab.produce(topic, *numbered("v", 2 * each), partitions=[0, 1] * each)
        consumer: Any = first.consumer
        consume = consumer._consume
        chunks: list[int] = []

        def until_revoked(size: int, _wait: float) -> list[Any]:
            """One full chunk, then whatever comes before the revocation."""
            found: list[Any] = []
            full = not chunks

            def done() -> bool:
                got = consume(size - len(found) if full else 1, 0.1)
                found.extend(message for message in got if message.error() is None)
                return len(found) == size if full else bool(first.told("revoked"))

            eventually(done, "a chunk is full, or the partitions are revoked")
            chunks.append(len(found))
            return found

        def commit(revoked: Sequence[TopicPartition]) -> None:
            consumer.commit({tp: consumer.position(tp) for tp in revoked})

        first.during_revoke = commit
        second = lab.member(group, topic)
        consumer._consume = until_revoked
        for batch in consumer.poll(3 * CHUNK, 10):
            first.records += records_of(batch)
        assert chunks[0] == CHUNK
        assert first.told("revoked") == {TopicPartition(topic, 0), TopicPartition(topic, 1)}
        consumer._consume = consume
        everything = {(p, offset) for p in (0, 1) for offset in range(each)}

        def seen() -> set[tuple[int, int]]:
            return {(r.partition, r.offset) for member in (first, second) for r in member.records}

        until([first, second], lambda: len(first.owned()) == len(second.owned()) == 1, "each has a partition")
        until(
            [first, second],
            lambda: (
                max(lab.admin.offsets([TopicPartition(topic, 0)], "latest").values()) == each
                and all(m.consumer.position(tp) == each for m in (first, second) for tp in m.owned())
            ),
            "all is consumed",
        )
        assert everything - seen() == set()
