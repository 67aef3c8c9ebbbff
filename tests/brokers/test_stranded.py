"""Clients that lost every broker, as after a broker that starts told them that there is none."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from streampipe.brokers.kafka import reader as module
from streampipe.brokers.kafka.admin import KafkaAdmin
from streampipe.brokers.kafka.consumer import KafkaConsumer
from streampipe.brokers.kafka.errors import Translator
from streampipe.brokers.kafka.reader import KafkaReader
from streampipe.brokers.kafka.settings import KafkaSettings
from streampipe.errors import ClientLost, Unavailable
from streampipe.records import TopicPartition

ERRORS = Translator("kafka:nowhere:1", KafkaSettings("nowhere:1"))
HERE = TopicPartition("t", 0)


class Topic:
    error = None
    partitions = (0,)


class Found:
    def __init__(self, *brokers: int) -> None:
        self.brokers, self.topics = dict.fromkeys(brokers), {"t": Topic}


class Nobody:
    """A listener of a group that nothing happens in."""

    def on_assigned(self, partitions: Any) -> None: ...

    def on_revoked(self, partitions: Any) -> None: ...

    def on_lost(self, partitions: Any) -> None: ...


class Silent:
    """A librdkafka consumer that hears nothing; `answers` are those to its look-ups of metadata, None: a time-out."""

    def __init__(self, *answers: Found | None) -> None:
        self.answers, self.assigned, self.closed = list(answers), list[KafkaPartition](), False

    def list_topics(self, topic: str = "", timeout: float = 0) -> Found:
        answer = self.answers.pop(0)
        if answer is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return answer

    def consume(self, count: int, timeout: float) -> list[Any]:
        return []

    def assign(self, partitions: list[KafkaPartition]) -> None:
        self.assigned = partitions

    def position(self, partitions: list[KafkaPartition]) -> list[KafkaPartition]:
        return [KafkaPartition(p.topic, p.partition, 42) for p in partitions]

    def subscribe(self, topics: list[str], **_: Any) -> None: ...

    def close(self) -> None:
        self.closed = True


def member_of(*clients: Silent) -> KafkaConsumer:
    member = KafkaConsumer(making(*clients), ERRORS, reset="earliest", eager=False)
    member.subscribe(["t"], Nobody())
    return member


def making(*clients: Silent) -> Any:
    left = list(clients)
    return lambda _: cast(Consumer, left.pop(0))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", -1.0)


@pytest.mark.parametrize("lost", [None, Found()])
def test_a_reader_that_lost_its_brokers_goes_on_where_it_was_with_another_client(lost: Found | None) -> None:
    stuck, probe, fresh = Silent(Found(1), lost), Silent(Found(1)), Silent()
    reader = KafkaReader(making(stuck, probe, fresh), ERRORS, {HERE: 7})
    assert [p.offset for p in stuck.assigned] == [7]
    assert reader.poll(10, 0.0) == []
    assert (stuck.closed, probe.closed, fresh.closed) == (True, True, False)
    assert [(p.topic, p.partition, p.offset) for p in fresh.assigned] == [("t", 0, 42)]


def test_a_member_that_lost_its_brokers_has_to_join_anew() -> None:
    member = member_of(Silent(Found(1), None), Silent(Found(1)))
    with pytest.raises(ClientLost, match="had lost its brokers"):
        member.poll(10, 0.0)


@pytest.mark.parametrize("clients", [(Silent(Found(1), Found(1)),), (Silent(Found(1), None), Silent(None))])
def test_a_client_that_is_answered_and_one_whose_brokers_are_away_are_kept(clients: tuple[Silent, ...]) -> None:
    member = member_of(*clients)
    assert member.poll(10, 0.0) == []
    assert not clients[0].closed


def test_a_client_is_not_asked_before_it_was_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 10.0)
    member = member_of(Silent(Found(1)))
    assert member.poll(10, 0.0) == []


class Away:
    """An admin client that lost its brokers."""

    def list_topics(self, timeout: float) -> Found:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))


class There:
    """One that did not."""

    def list_topics(self, timeout: float) -> Found:
        return Found(1)


def test_an_admin_whose_client_was_not_answered_asks_with_another_one() -> None:
    clients: list[Any] = [Away(), There()]
    admin = KafkaAdmin(lambda: clients.pop(0), ERRORS, lambda _: cast(Consumer, None))
    with pytest.raises(Unavailable):
        admin.topics()
    assert admin.topics() == {"t": 1}
