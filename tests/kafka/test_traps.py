"""What is special about Kafka and librdkafka: what they accept silently, crash on, or wait for without end."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from streampipe.brokers.kafka import KafkaBroker
from streampipe.brokers.kafka.reader import close_within_deadline
from streampipe.brokers.kafka.settings import log
from streampipe.errors import ConfigError, StreampipeError, TransactionAborted, Unavailable
from streampipe.records import TopicPartition
from tests.brokers.helpers import Lab, batch, eventually, numbered, unique, until

NOBODY = "127.0.0.1:1"


@pytest.fixture
def lab(kafka_bootstrap: str) -> Iterator[Lab]:
    with Lab(KafkaBroker(kafka_bootstrap)) as lab:
        yield lab


def produce_with_raw_header(bootstrap: str, topic: str, name: bytes) -> None:
    """confluent-kafka encodes header names, so the record comes from librdkafka's C API (rd_kafka_producev)."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    libraries = list(folder.glob("librdkafka-*.so*"))
    if not libraries:
        pytest.skip("this confluent-kafka does not bundle librdkafka as a shared library")
    rk = ctypes.CDLL(str(libraries[0]))
    for function in ("rd_kafka_conf_new", "rd_kafka_new"):
        getattr(rk, function).restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(rk.rd_kafka_conf_new())
    for key, value in ((b"bootstrap.servers", bootstrap.encode()), (b"log_level", b"0")):
        assert rk.rd_kafka_conf_set(conf, key, value, error, ctypes.c_size_t(512)) == 0
    producer = ctypes.c_void_p(rk.rd_kafka_new(ctypes.c_int(0), conf, error, ctypes.c_size_t(512)))
    assert producer, error.value
    end, topic_tag, value_tag, copy_tag, header_tag = 0, 1, 4, 7, 9
    arguments = [
        ctypes.c_int(topic_tag), ctypes.c_char_p(topic.encode()),
        ctypes.c_int(value_tag), ctypes.c_char_p(b"value"), ctypes.c_size_t(5),
        ctypes.c_int(copy_tag), ctypes.c_int(2),
        ctypes.c_int(header_tag), ctypes.c_char_p(name), ctypes.c_char_p(b"x"), ctypes.c_ssize_t(1),
        ctypes.c_int(end),
    ]  # fmt: skip
    assert rk.rd_kafka_producev(producer, *arguments) == 0
    assert rk.rd_kafka_flush(producer, ctypes.c_int(10_000)) == 0
    rk.rd_kafka_destroy(producer)


def test_a_header_name_that_is_not_utf8_is_a_value_error_every_time(lab: Lab, kafka_bootstrap: str) -> None:
    topic = lab.topic()
    produce_with_raw_header(kafka_bootstrap, topic, b"bad-\xff\xfe")
    reader = lab.reader(TopicPartition(topic, 0))
    [found] = reader.poll(10, 10.0)
    for _ in range(3):  # the second look would crash the process if it reached librdkafka
        with pytest.raises(ValueError, match="UTF-8"):
            found.headers(0)
    assert found.values == [b"value"]


@pytest.mark.parametrize("settings", [{"message.max.bytes": "2000"}, {}])
def test_a_record_that_is_too_large_makes_commit_refuse_and_names_topic_and_size(
    kafka_bootstrap: str, lab: Lab, settings: dict[str, str]
) -> None:
    topic = lab.topic(config={"max.message.bytes": "3000"})
    producer = KafkaBroker(kafka_bootstrap, settings).producer(unique("tx"))
    producer.begin()
    producer.produce(batch(topic, b"fine", b"x" * 5000))
    with pytest.raises(TransactionAborted, match=rf"5000 bytes to {topic}"):
        producer.flush()
    with pytest.raises(TransactionAborted):
        producer.commit()
    producer.abort()
    producer.begin()
    producer.produce(batch(topic, b"next"))
    producer.commit()
    producer.close()
    assert [r.value for r in lab.read(TopicPartition(topic, 0))] == [b"next"]


def test_a_listener_that_raises_when_assigned_loses_no_record(lab: Lab) -> None:
    topic = lab.topic()
    lab.produce(topic, *numbered("v", 50))
    member = lab.member(unique("group"), topic)
    failures = [RuntimeError("no state")]

    def fail(_: Sequence[TopicPartition]) -> None:
        if failures:
            raise failures.pop()

    member.during_assign = fail

    def step() -> bool:
        try:
            member.step()
        except RuntimeError:
            return True
        assert not member.records, "records arrived before the listener's error did"
        return False

    eventually(step, "poll raises what the listener raised")
    until([member], lambda: len(member.records) >= 50, "everything arrives")
    assert [r.offset for r in member.records] == list(range(50))


def test_a_pause_inside_on_assigned_holds(lab: Lab) -> None:
    topic = lab.topic()
    tp = TopicPartition(topic, 0)
    lab.produce(topic, *numbered("v", 50))
    member = lab.member(unique("group"), topic)
    member.during_assign = member.consumer.pause
    until([member], lambda: member.owned() == {tp}, "the partition is assigned")
    for _ in range(20):
        member.step()
    assert member.records == []
    member.consumer.resume([tp])
    until([member], lambda: len(member.records) == 50, "everything arrives after resume")


def test_a_pause_between_polls_drops_nothing_that_was_fetched(lab: Lab) -> None:
    topic = lab.topic()
    tp = TopicPartition(topic, 0)
    lab.produce(topic, *numbered("v", 5000))
    member = lab.member(unique("group"), topic)
    eventually(lambda: member.step(max_records=7), "the first records arrive")
    member.consumer.pause([tp])
    before = len(member.records)
    for _ in range(10):
        member.step()
    assert len(member.records) == before
    member.consumer.resume([tp])
    until([member], lambda: len(member.records) >= 5000, "the rest arrives")
    assert [r.offset for r in member.records] == list(range(5000))


def test_there_is_no_membership_before_the_first_assignment(lab: Lab) -> None:
    topic = lab.topic()
    member = lab.member(unique("group"), topic)
    assert member.consumer.group_metadata() is None
    until([member], member.owned, "the partition is assigned")
    assert member.consumer.group_metadata() is not None


@pytest.mark.parametrize(
    "open_client",
    [
        lambda broker: broker.admin().topics(),
        lambda broker: broker.producer(),
        lambda broker: broker.producer("tx"),
        lambda broker: broker.consumer("g").subscribe(["t"], None),
        lambda broker: broker.reader({TopicPartition("t", 0): 0}),
    ],
    ids=["admin", "producer", "transactional", "subscribe", "reader"],
)
@pytest.mark.slow
def test_an_unreachable_broker_is_unavailable_within_seconds(open_client: Callable[[KafkaBroker], object]) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"kafka:127\.0\.0\.1:1 cannot be reached"):
        open_client(KafkaBroker(NOBODY))
    assert time.monotonic() - started < 25


def test_a_close_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streampipe.brokers.kafka.reader.CLOSE_DEADLINE_S", 0.1)
    started = time.monotonic()
    close_within_deadline(lambda: time.sleep(2), "kafka:x")
    assert time.monotonic() - started < 1.5


def test_a_lost_connection_is_reported_by_librdkafkas_own_lines_alone(caplog: pytest.LogCaptureFixture) -> None:
    consumer = KafkaBroker(NOBODY).consumer(unique("group"))
    try:
        with caplog.at_level(logging.DEBUG, log.name):
            eventually(lambda: consumer.poll(1, 0.1) or "_TRANSPORT" in caplog.text, "the failure is reported")
    finally:
        consumer.close()
    assert [m for _, level, m in caplog.record_tuples if level > logging.DEBUG and "KafkaError" in m] == []
    assert any(level > logging.DEBUG and "refused" in m for _, level, m in caplog.record_tuples)


def test_other_errors_of_a_connection_are_logged_for_people(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, log.name):
        KafkaBroker(NOBODY)._log(KafkaError(KafkaError._RESOLVE))
        KafkaBroker(NOBODY)._log(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert [("_RESOLVE" in m, level) for _, level, m in caplog.record_tuples] == [(True, logging.INFO)]


@pytest.mark.parametrize("shown", [logging.INFO, logging.WARNING])
def test_what_librdkafka_tries_again_by_itself_is_no_warning(shown: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(shown, log.name):
        for line in ("Failed to acquire transactional PID from broker b:1/1: retrying", "Fenced for good"):
            log.log(logging.WARNING, "%s [%s] %s", "GETPID" if "PID" in line else "FENCED", "rdkafka#producer-1", line)
    told = [(level, "PID" in message) for _, level, message in caplog.record_tuples]
    assert told == [*([(logging.INFO, True)] if shown == logging.INFO else []), (logging.WARNING, False)]


@pytest.mark.parametrize(
    "key", ["plugin.library.paths", "ssl.engine.location", "sasl.kerberos.kinit.cmd", "ssl.providers"]
)
def test_keys_that_run_code_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        KafkaBroker(NOBODY, {key: "/tmp/evil"})


@pytest.mark.parametrize(
    "key",
    [
        "enable.auto.commit",
        "enable.auto.offset.store",
        "isolation.level",
        "enable.idempotence",
        "group.id",
        "transactional.id",
    ],
)
def test_keys_that_correctness_depends_on_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        KafkaBroker(NOBODY, {key: "true"})


@pytest.mark.parametrize("address", ["", "host", "user:secret@host:9092", "host:9092/path", "host:9092,"])
def test_a_malformed_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port") as raised:
        KafkaBroker(address)
    assert "secret" not in str(raised.value)


def test_an_unknown_setting_is_named_and_secrets_are_not(caplog: pytest.LogCaptureFixture) -> None:
    broker = KafkaBroker(NOBODY, {"sasl.password": "hunter2-canary", "no.such.key": "hunter2-canary"})
    with caplog.at_level(logging.DEBUG), pytest.raises(StreampipeError, match=r"no\.such\.key") as raised:
        broker.admin()
    assert isinstance(raised.value, ConfigError)
    assert "canary" not in f"{raised.value} {broker.name} {broker._settings!r} {caplog.text}"
