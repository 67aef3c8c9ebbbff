"""Clients whose Kafka restarts between two of their calls, orderly or not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from streampipe.brokers.kafka import KafkaBroker
from streampipe.errors import ClientLost, TransactionAborted, Unavailable
from streampipe.records import TopicPartition
from streampipe.testing.stack import Stack
from tests.brokers.helpers import Lab, batch, eventually, settle, unique

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def lab(kafka_stack: Stack) -> Iterator[Lab]:
    with Lab(KafkaBroker(kafka_stack.bootstrap)) as lab:
        yield lab


@pytest.mark.parametrize("kill", [False, True])
def test_offsets_join_transactions_and_groups_are_described_after_a_restart(
    lab: Lab, kafka_stack: Stack, kill: bool
) -> None:
    topic, group = lab.topic(), unique("group")
    member, producer = lab.member(group, topic), lab.producer(unique("transactional"))

    opened = time.monotonic()

    def committed() -> bool:
        nonlocal member, producer, opened
        if time.monotonic() - opened > 30:  # clients that get nowhere are replaced, as a worker's are
            member, producer, opened = lab.member(group, topic), lab.producer(unique("transactional")), time.monotonic()
        try:
            member.step()
        except ClientLost:  # a starting broker may tell a client that there are none; a worker replaces it then
            member = lab.member(group, topic)
            return False
        try:
            producer.begin()
            producer.produce(batch(topic, b"value"))
            producer.send_offsets(dict.fromkeys(member.owned(), 1), member.consumer.group_metadata())
            producer.commit()
        except (TransactionAborted, Unavailable):
            producer.abort()
            return False
        return True

    settle([member], [TopicPartition(topic, 0)])
    assert committed()
    assert lab.admin.describe_group(group).members
    kafka_stack.restart_kafka(kill=kill)
    eventually(lambda: committed() and member.owned(), "a transaction was committed", deadline_s=90.0)
    assert lab.admin.describe_group(group).members
