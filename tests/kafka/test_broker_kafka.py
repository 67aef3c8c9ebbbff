"""The Kafka broker keeps the Broker port, with either group protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from streampipe.brokers.kafka import KafkaBroker
from tests.brokers.conformance import BrokerConformance


class _Conformance(BrokerConformance):
    settings: ClassVar[Mapping[str, str]]
    impatient: ClassVar[Mapping[str, str]]

    @pytest.fixture
    def broker(self, kafka_bootstrap: str) -> KafkaBroker:
        return KafkaBroker(kafka_bootstrap, self.settings)

    @pytest.fixture
    def impatient_broker(self, kafka_bootstrap: str) -> KafkaBroker:
        return KafkaBroker(kafka_bootstrap, {**self.settings, **self.impatient})


@pytest.mark.kafka
class TestKafkaWithClassicGroups(_Conformance):
    settings: ClassVar[Mapping[str, str]] = {"group.protocol": "classic"}
    impatient: ClassVar[Mapping[str, str]] = {"max.poll.interval.ms": "2000", "session.timeout.ms": "2000"}


@pytest.mark.kafka
class TestKafkaWithGroupsOnTheBroker(_Conformance):
    settings: ClassVar[Mapping[str, str]] = {"group.protocol": "consumer"}
    impatient: ClassVar[Mapping[str, str]] = {"max.poll.interval.ms": "2000"}
