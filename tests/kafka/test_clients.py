"""What our clients make of librdkafka's answers that a healthy cluster does not give."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from streampipe.brokers.kafka.admin import KafkaAdmin
from streampipe.brokers.kafka.consumer import KafkaConsumer
from streampipe.brokers.kafka.errors import Translator
from streampipe.brokers.kafka.producer import KafkaProducer
from streampipe.brokers.kafka.settings import KafkaSettings
from streampipe.errors import ConfigError, Fenced, StreampipeError, TransactionAborted, Unavailable
from streampipe.records import ProduceBatch, TopicPartition

ERRORS = Translator("kafka:test:9092", KafkaSettings("test:9092"))
ZERO, ONE = TopicPartition("in", 0), TopicPartition("in", 1)


class Scripted:
    """A client whose methods answer from a script: a value, or an exception to raise; None when it is through."""

    def __init__(self, **script: list[Any]) -> None:
        self.script = {name: deque(answers) for name, answers in script.items()}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **_: Any) -> Any:
            self.calls.append((name, args))
            answers = self.script.get(name)
            answer = answers.popleft() if answers else None
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def arguments(self, method: str) -> list[Any]:
        return [args for name, args in self.calls if name == method]


class Quiet:
    def on_assigned(self, partitions: Any) -> None: ...
    def on_revoked(self, partitions: Any) -> None: ...
    def on_lost(self, partitions: Any) -> None: ...


def at(partition: TopicPartition, offset: int, error: int | None = None) -> KafkaPartition:
    if error is not None:
        return SimpleNamespace(**partition._asdict(), offset=-1001, error=KafkaError(error))  # type: ignore[return-value] # error is read-only
    return KafkaPartition(partition.topic, partition.partition, offset)


def refused(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


def joined(client: Scripted, reset: str = "earliest") -> tuple[KafkaConsumer, Any]:
    """A consumer and librdkafka's call of its on_assign."""
    consumer = KafkaConsumer(lambda _: client, ERRORS, reset=reset, eager=False)  # type: ignore[arg-type,return-value] # as a client
    client.script["list_topics"] = deque([SimpleNamespace(topics={"in": SimpleNamespace(error=None)})])
    on_assign: list[Any] = []
    client.__dict__["subscribe"] = lambda _topics, **callbacks: on_assign.append(callbacks["on_assign"])
    consumer.subscribe(["in"], Quiet())
    return consumer, lambda *partitions: on_assign[0](client, [at(p, -1001) for p in partitions])


@pytest.mark.parametrize("reset", ["earliest", "latest"])
def test_partitions_are_assigned_with_numbers_since_librdkafkas_own_look_up_may_never_end(reset: str) -> None:
    client = Scripted(committed=[[at(ZERO, 7), at(ONE, -1001)]], offsets_for_times=[[at(ONE, 3)]])
    _, assign = joined(client, reset)
    assign(ZERO, ONE)
    [[placed]] = client.arguments("incremental_assign")
    assert [(p.partition, p.offset) for p in placed] == [(0, 7), (1, 3)]


@pytest.mark.parametrize("code", [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS])
def test_a_coordinator_that_moves_is_asked_again(code: int) -> None:
    client = Scripted(committed=[refused(code), [at(ZERO, 0, code)], [at(ZERO, 7)]])
    consumer, _ = joined(client)
    assert consumer.committed([ZERO]) == {ZERO: 7}


def test_a_coordinator_that_stays_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streampipe.brokers.kafka.consumer.REQUEST_TIMEOUT_S", 0.3)
    consumer, _ = joined(Scripted(committed=[refused(KafkaError.NOT_COORDINATOR)] * 100))
    with pytest.raises(Unavailable, match="committed offsets"):
        consumer.committed([ZERO])


def test_an_answer_that_time_does_not_change_is_told_at_once() -> None:
    client = Scripted(committed=[refused(KafkaError.INVALID_GROUP_ID)])
    consumer, _ = joined(client)
    with pytest.raises(StreampipeError, match="committed offsets"):
        consumer.committed([ZERO])
    assert len(client.arguments("committed")) == 1


@pytest.mark.parametrize(
    ("reset", "code", "told"),
    [
        ("earliest", KafkaError._TIMED_OUT, False),  # librdkafka goes on waiting by itself
        ("latest", KafkaError._TIMED_OUT, True),
        ("earliest", KafkaError.GROUP_AUTHORIZATION_FAILED, True),
    ],
)
def test_a_partition_whose_start_is_unknown_is_assigned_all_the_same(reset: str, code: int, told: bool) -> None:
    client = Scripted(committed=[refused(code)], consume=[[]])
    consumer, assign = joined(client, reset)
    assign(ZERO)
    assert len(client.arguments("incremental_assign")) == 1
    with pytest.raises((Unavailable, ConfigError)) if told else nullcontext():
        consumer.poll(10, 0.0)
    assert consumer.assignment() == {ZERO}


STALE = [KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION]


@pytest.mark.parametrize("code", STALE)
@pytest.mark.parametrize("told", ["by the call", "by the partition"])
def test_a_start_is_looked_up_again_when_a_partition_has_another_leader(code: int, told: str) -> None:
    stale = refused(code) if told == "by the call" else [at(ZERO, -1, code)]
    client = Scripted(committed=[[], []], offsets_for_times=[stale, [at(ZERO, 5)]])
    consumer, _ = joined(client)
    before = len(client.arguments("list_topics"))
    with pytest.raises(Unavailable, match="leader"):
        consumer._start(ZERO)
    assert len(client.arguments("list_topics")) == before + 1  # so that the next try goes to the new leader
    assert consumer._start(ZERO) == 5


@pytest.mark.parametrize("code", STALE)
def test_offsets_are_looked_up_again_when_a_partition_has_another_leader(code: int) -> None:
    def answer(result: Any) -> dict[Any, Any]:
        future: Future[Any] = Future()
        (future.set_exception if isinstance(result, Exception) else future.set_result)(result)
        return {KafkaPartition("in", 0): future}

    known = SimpleNamespace(topics={"in": SimpleNamespace(error=None, partitions={0: None})})
    client = Scripted(
        list_offsets=[answer(refused(code)), answer(SimpleNamespace(offset=9))], list_topics=[known]
    )  # fmt: skip
    admin = KafkaAdmin(lambda: client, ERRORS, lambda _: None)  # type: ignore[arg-type,return-value] # as a client
    assert admin.offsets([ZERO], "latest") == {ZERO: 9}
    assert len(client.arguments("list_topics")) == 1


def test_an_abort_that_could_not_replace_its_client_can_be_called_again() -> None:
    listed = SimpleNamespace(topics={})
    worn = Scripted(list_topics=[listed])
    unstarted = Scripted(list_topics=[refused(KafkaError._TRANSPORT)])
    fresh = Scripted(list_topics=[listed])
    clients = iter([worn, unstarted, fresh])
    producer = KafkaProducer(lambda _: next(clients), ERRORS, transactional=True, timeout_s=1)  # type: ignore[arg-type,return-value] # as clients
    producer.begin()
    producer._failed = TransactionAborted("a record was refused")
    with pytest.raises(Unavailable):
        producer.abort()
    producer.abort()
    producer.begin()
    assert [name for name, _ in fresh.calls] == ["list_topics", "init_transactions", "begin_transaction"]


@pytest.mark.parametrize("call", ["poll", "flush"])
@pytest.mark.parametrize("told", ["as it is", "as a cause", "not at all"])
def test_a_zombie_hears_that_it_is_one_whichever_call_the_fatal_error_comes_out_of(call: str, told: str) -> None:
    fatal: Exception = KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))
    if told != "as it is":  # delivery callbacks of the same call ran into the exception that was set
        error = SystemError("a method returned what it should not have returned")
        error.__cause__ = fatal if told == "as a cause" else None
        fatal = error
    topics = {"out": SimpleNamespace(partitions={0: None}, error=None)}
    client = Scripted(list_topics=[SimpleNamespace(topics=topics)], **{call: [fatal]})
    producer = KafkaProducer(lambda _: client, ERRORS, transactional=True, timeout_s=1)  # type: ignore[arg-type,return-value] # as a client
    producer.begin()
    producer.produce(ProduceBatch("out", [None], [b"v"], partitions=[0]))
    with pytest.raises(Fenced):
        producer.flush()
    with pytest.raises(Fenced):
        producer.commit()


def test_a_client_that_closes_is_not_asked_for_its_membership_since_it_may_never_answer() -> None:
    client = Scripted(committed=[[at(ZERO, 7)]])
    consumer, assign = joined(client)
    assign(ZERO)
    client.__dict__["close"] = lambda: consumer._on_revoke(client, [at(ZERO, -1001)])  # type: ignore[arg-type] # as librdkafka does
    consumer.close()
    assert client.arguments("consumer_group_metadata") == []
    assert consumer.assignment() == set()
