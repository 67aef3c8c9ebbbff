"""Clients whose Kafka restarts between two of their calls, orderly or not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from streampipe.brokers.kafka import KafkaBroker
from streampipe.brokers.port import Producer
from streampipe.errors import ClientLost, TransactionAborted, Unavailable
from streampipe.records import TopicPartition
from streampipe.testing.stack import Stack
from tests.brokers.helpers import Lab, Member, batch, eventually, settle, unique

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

    def clients() -> tuple[Member, Producer, float]:
        return lab.member(group, topic), lab.producer(unique("transactional")), time.monotonic()

    member, producer, opened = clients()

    def replace() -> None:
        """Close clients that get nowhere and open others, in this order, as a worker does it.

        A member that is alive and not polled holds up its group's rebalance until `max.poll.interval.ms`.
        """
        nonlocal member, producer, opened
        member.close()
        producer.close()
        member, producer, opened = clients()

    def committed() -> bool:
        if time.monotonic() - opened > 30:
            replace()
        try:
            member.step()
            producer.begin()
            producer.produce(batch(topic, b"value"))
            producer.send_offsets(dict.fromkeys(member.owned(), 1), member.consumer.group_metadata())
            producer.commit()
        except ClientLost:  # a starting broker may tell a client that there are no brokers
            replace()
        except (TransactionAborted, Unavailable):
            producer.abort()
        else:
            return bool(member.owned())
        return False

    settle([member], [TopicPartition(topic, 0)])
    assert committed()
    assert lab.admin.describe_group(group).members
    kafka_stack.restart_kafka(kill=kill)
    opened = time.monotonic()
    eventually(committed, "a transaction was committed", deadline_s=90.0)
    assert lab.admin.describe_group(group).members
