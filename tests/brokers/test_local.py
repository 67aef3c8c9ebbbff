"""The embedded broker keeps the Broker port."""

from pathlib import Path

import pytest

from streampipe.brokers.local import LocalBroker
from tests.brokers.conformance import BrokerConformance


class TestLocalBroker(BrokerConformance):
    @pytest.fixture
    def broker(self, tmp_path: Path) -> LocalBroker:
        return LocalBroker(tmp_path / "broker.db")

    @pytest.fixture
    def impatient_broker(self, tmp_path: Path) -> LocalBroker:
        return LocalBroker(tmp_path / "broker.db", session_timeout_s=0.6, max_poll_interval_s=0.5)
