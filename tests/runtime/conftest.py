"""Both brokers, under the same tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from uuid import uuid4

import pytest

from streampipe.brokers.local import LocalBroker
from streampipe.brokers.port import Broker
from tests.runtime.fakes import Names


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    if request.param == "local":
        return LocalBroker(tmp_path / "broker.db", session_timeout_s=2.0)
    if importlib.util.find_spec("streampipe.brokers.kafka") is None:
        pytest.skip("no Kafka broker yet")
    from streampipe.brokers.kafka import KafkaBroker

    return KafkaBroker(request.getfixturevalue("kafka_bootstrap"))


@pytest.fixture
def names(broker: Broker) -> Names:
    found = Names(f"app{uuid4().hex[:8]}")
    found.create(broker)
    return found
