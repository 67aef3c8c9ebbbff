"""Polling: chunks of messages until there are enough, as columns; positions; and reading outside any group."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from streampipe.brokers.kafka.columns import Messages, joined, read
from streampipe.brokers.kafka.errors import CREDENTIALS, FORBIDDEN, UNKNOWN_TOPIC, Translator, kafka_error
from streampipe.brokers.kafka.settings import REQUEST_TIMEOUT_S, log
from streampipe.errors import Fenced, StreampipeError, UnknownTopic
from streampipe.records import RecordBatch, TopicPartition

CHUNK = 1_000
"""Messages per `consume` call: fresh Message objects then come from a warm cache (measured against 5,000, 20,000)."""
CLOSE_DEADLINE_S = 10.0
SILENCE_S = 20.0
"""After how long without a sign of life a client is asked whether it still knows a broker: longer than
`reconnect.backoff.max.ms`, ten seconds, after which it finds one that is back by itself."""
_ANSWER_S = 2.0
_SIGNAL_S = 1.0  # a waiting consume() does not see Ctrl-C
_OFFSETS_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
_HARMLESS = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._MAX_POLL_EXCEEDED}
_LOGGED_BY_LIBRDKAFKA = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}

MakeConsumer: TypeAlias = Callable[[Callable[[KafkaError], None]], Consumer]
"""Opens a librdkafka consumer that reports its errors to the given function."""


class Polling:
    """What readers and group members share. Errors that librdkafka reports are raised by the poll after them."""

    def __init__(self, make: MakeConsumer, errors: Translator) -> None:
        self._errors = errors
        self._failed: StreampipeError | None = None
        self._ends: dict[TopicPartition, int] = {}
        self._starts: dict[TopicPartition, int] = {}
        self._fetched: list[RecordBatch] = []
        """What the poll under way has taken from librdkafka, and not handed over yet."""
        self._topic: str | None = None
        """The only topic, if there is only one."""
        self._known_topic = ""
        self._closed = False
        self._make = make
        self._consumer = self._opened()
        self._alive_at = time.monotonic()

    def _opened(self) -> Consumer:
        return self._errors.open(lambda: self._make(self._on_error))

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Up to `max_records`, waiting up to `timeout_s` for the first. Raises Unavailable, ConfigError, Fenced."""
        deadline = time.monotonic() + timeout_s
        found = self._fetched = []
        count, wait = 0, 0.0
        while count < max_records:
            size = min(CHUNK, max_records - count) if count or not wait else 1
            runs, events = read(self._consume(size, 0.0 if count else wait), self._topic)
            for event in events:
                self._on_event(event)
            got = sum(map(len, runs))
            found.extend(runs)
            count += got
            if self._interrupted():
                break
            if not count:
                wait = min(deadline - time.monotonic(), _SIGNAL_S)
                if wait <= 0:
                    break
            elif got < size:
                break
        self._fetched = []
        if count:
            self._alive_at = time.monotonic()
        elif self._known_topic and time.monotonic() - self._alive_at > SILENCE_S:
            self._check_connection()
        return self._handed_over(joined(found))

    def _check_connection(self) -> None:
        """Give a client up that knows no broker any more although there is one.

        A broker that starts or stops may answer that there are no brokers. librdkafka then forgets those it knew, asks
        nobody again, and is silent for ever (issue 5301, whatever `metadata.recovery.strategy` says).
        """
        if not _answers(self._consumer, self._known_topic):
            another = self._errors.open(lambda: self._make(lambda _: None))
            reachable = _answers(another, self._known_topic)
            close_within_deadline(another.close, self._errors.name)
            if reachable:
                self._stranded()
        self._alive_at = time.monotonic()

    def _stranded(self) -> None:
        """This client will never hear of a broker again."""
        raise NotImplementedError

    def position(self, partition: TopicPartition) -> int:
        """Offset of the next record to be handed over.

        Also while a poll is under way, which is when a listener asks: librdkafka is past what the poll's earlier
        chunks hold, but nobody has seen that yet.
        """
        for batch in self._fetched:
            if batch.topic == partition.topic and (mine := batch.partitions == partition.partition).any():
                return int(batch.offsets[mine][0])
        [answer] = self._errors.call("reading a position", lambda: self._consumer.position([place(partition)]))
        reached = self._ends.get(partition, OFFSET_INVALID)
        if answer.offset >= 0 or reached >= 0:
            return max(int(answer.offset), reached, self._starts.get(partition, 0))
        if partition not in self._starts:
            self._starts[partition] = self._start(partition)
        return self._starts[partition]

    def close(self) -> None:
        """Leave and release everything; after ten seconds without an answer the rest is left to a daemon thread."""
        if not self._closed:
            self._closed = True
            close_within_deadline(self._consumer.close, self._errors.name)

    def _interrupted(self) -> bool:
        return self._failed is not None

    def _handed_over(self, found: list[RecordBatch]) -> list[RecordBatch]:
        if self._failed is not None and not found:
            failed, self._failed = self._failed, None
            raise failed
        return found

    def _start(self, partition: TopicPartition) -> int:
        raise NotImplementedError

    def _consume(self, size: int, wait: float) -> Messages:
        messages: Messages = self._errors.call("consuming", lambda: self._consumer.consume(size, wait))
        return messages

    def _on_event(self, event: Message) -> None:
        error, topic = event.error(), event.topic() or ""
        if error is None:
            return
        if error.code() in _HARMLESS:
            log_connection(error, self._errors)
            return
        where = TopicPartition(topic, -1 if (number := event.partition()) is None else number)
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[where] = event.offset() or 0
        elif error.code() in UNKNOWN_TOPIC and topic:
            self._failed = UnknownTopic(topic)
        elif error.code() in _OFFSETS_GONE:
            self._offset_gone(where, error)
        elif not error.retriable():
            self._failed = self._errors.of(error, f"consuming {topic}".strip())

    def _offset_gone(self, partition: TopicPartition, error: KafkaError) -> None:
        self._failed = self._errors.of(error, f"consuming {partition}")

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka's errors about the connection; it goes on trying by itself after most of them."""
        if error.code() in CREDENTIALS | FORBIDDEN:
            self._failed = self._errors.of(error, "connecting")
        elif error.fatal() or error.code() == KafkaError._FATAL:
            self._failed = Fenced(f"consumer on broker {self._errors.name}: {self._errors.clean(error.str())}")
        else:
            log_connection(error, self._errors)


class KafkaReader(Polling):
    """Reads given partitions from given offsets."""

    def __init__(
        self,
        make: MakeConsumer,
        errors: Translator,
        offsets: Mapping[TopicPartition, int],
    ) -> None:
        super().__init__(make, errors)
        self._starts = dict(offsets)
        topics = {partition.topic for partition in offsets}
        try:
            check_topics(self._consumer, topics, errors)
        except BaseException:
            self.close()
            raise
        self._known_topic = min(topics, default="")
        self._topic = self._known_topic if len(topics) == 1 else None
        self._assign()

    def _stranded(self) -> None:
        """Go on with another client where this one was."""
        log.warning("a reader of %s had lost its brokers and is replaced", self._errors.name)
        self._starts = {partition: self.position(partition) for partition in self._starts}
        self._ends.clear()
        close_within_deadline(self._consumer.close, self._errors.name)
        self._consumer = self._opened()
        self._assign()

    def _assign(self) -> None:
        self._consumer.assign([place(partition, offset) for partition, offset in self._starts.items()])

    def _start(self, partition: TopicPartition) -> int:
        raise StreampipeError(f"{partition} is not read by this reader")

    def _offset_gone(self, partition: TopicPartition, error: KafkaError) -> None:
        """An offset below the log's start goes on at the start; one past its end is an error."""
        low, _ = self._errors.call(
            "looking up offsets",
            lambda: self._consumer.get_watermark_offsets(place(partition), timeout=REQUEST_TIMEOUT_S),
        )
        if self._starts[partition] < low:
            log.warning("%s starts at offset %d now, not at %d", partition, low, self._starts[partition])
            self._starts[partition] = low
            self._consumer.seek(place(partition, low))
        else:
            super()._offset_gone(partition, error)


def _answers(client: Consumer, topic: str) -> bool:
    """Whether a client finds a broker that says which brokers there are."""
    try:
        return bool(client.list_topics(topic, timeout=_ANSWER_S).brokers)
    except KafkaException:
        return False


def place(partition: TopicPartition, offset: int = OFFSET_INVALID) -> KafkaPartition:
    """A partition as confluent-kafka wants it."""
    return KafkaPartition(partition.topic, partition.partition, offset)


def check_topics(consumer: Consumer, topics: set[str], errors: Translator) -> None:
    """Raise UnknownTopic for a topic that is not there, Unavailable when the broker is not."""
    known = errors.call("looking up topics", lambda: consumer.list_topics(timeout=REQUEST_TIMEOUT_S)).topics
    for topic in sorted(topics):
        if topic not in known or known[topic].error is not None:
            raise UnknownTopic(topic)


def log_connection(error: KafkaError, errors: Translator) -> None:
    """Log what librdkafka reports and repairs; at debug level what its own log lines say already."""
    level = logging.DEBUG if error.code() in _LOGGED_BY_LIBRDKAFKA else logging.INFO
    log.log(level, "%s", errors.clean(error))


def close_within_deadline(close: Callable[[], object], name: str) -> None:
    """Run a close() that may hang while the broker is gone; never longer than ten seconds."""

    def quietly() -> None:
        try:
            close()
        except (KafkaException, RuntimeError, SystemError) as exception:
            # SystemError: the client may stumble over an error of its own that is pending while it closes
            log.info("closing a client of %s: %s", name, kafka_error(exception) or exception)

    thread = threading.Thread(target=quietly, name="streampipe-kafka-close", daemon=True)
    thread.start()
    thread.join(CLOSE_DEADLINE_S)
    if thread.is_alive():
        log.warning("a client of %s did not close within %.0f s and is abandoned", name, CLOSE_DEADLINE_S)
