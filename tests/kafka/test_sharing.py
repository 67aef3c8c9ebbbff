"""Which protocol a group speaks when nobody chose one."""

from __future__ import annotations

import pytest
from confluent_kafka import ConsumerGroupType
from confluent_kafka.admin import AdminClient

from streampipe.brokers.kafka import KafkaBroker
from streampipe.brokers.port import Broker
from tests.brokers.conformance_groups import partitions_of
from tests.brokers.helpers import Lab, settle, unique

pytestmark = pytest.mark.kafka


def group_type(bootstrap: str, group: str) -> ConsumerGroupType:
    admin = AdminClient({"bootstrap.servers": bootstrap})  # must live until its answer came
    futures = admin.describe_consumer_groups([group], request_timeout=10)
    found: ConsumerGroupType = futures[group].result(10).type
    return found


@pytest.mark.parametrize(
    ("co_partitioned", "spoken"), [(True, ConsumerGroupType.CONSUMER), (False, ConsumerGroupType.CLASSIC)]
)
def test_several_inputs_are_shared_by_the_brokers_own_range_assignor_and_one_input_stays_classic(
    kafka_bootstrap: str, co_partitioned: bool, spoken: ConsumerGroupType
) -> None:
    broker: Broker = KafkaBroker(kafka_bootstrap, {})
    with Lab(broker) as lab:
        one, two, group = lab.topic(4), lab.topic(4), unique("group")
        members = [lab.member(group, one, two, co_partitioned=co_partitioned) for _ in range(2)]
        settle(members, partitions_of(one, 4) | partitions_of(two, 4))
        assert group_type(kafka_bootstrap, group) == spoken
