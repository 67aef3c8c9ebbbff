"""The sentences of the Broker port as tests. Subclass `BrokerConformance`, whose parts are in this folder."""

from collections.abc import Iterator

import pytest

from streampipe.brokers.port import Broker
from tests.brokers.conformance_admin import AdminConformance
from tests.brokers.conformance_groups import GroupConformance
from tests.brokers.conformance_log import LogConformance
from tests.brokers.conformance_transactions import TransactionConformance
from tests.brokers.helpers import Lab


class BrokerConformance(LogConformance, GroupConformance, TransactionConformance, AdminConformance):
    """Subclasses provide `broker`, and `impatient_broker` to prove what happens to members that do not poll."""

    @pytest.fixture
    def broker(self) -> Broker:
        raise NotImplementedError

    @pytest.fixture
    def impatient_broker(self) -> Broker:
        """The same broker, with the shortest max poll interval it allows (a few seconds)."""
        pytest.skip("needs a broker with a short max poll interval")

    @pytest.fixture
    def lab(self, broker: Broker) -> Iterator[Lab]:
        with Lab(broker) as lab:
            yield lab
