"""Producing columns, in transactions or without."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from streampipe.brokers.kafka.errors import MEMBERSHIP_OVER, PRODUCER_OVER, TOO_LARGE, Translator, kafka_error
from streampipe.brokers.kafka.reader import close_within_deadline
from streampipe.brokers.kafka.settings import REQUEST_TIMEOUT_S, log
from streampipe.errors import ConfigError, Fenced, StreampipeError, TransactionAborted, Unavailable, UnknownTopic
from streampipe.records import NO_TIMESTAMP, ProduceBatch, TopicPartition, partitions_of

ANY_PARTITION = -1
_SLICE_S = 1.0  # a transaction call that waits does not see Ctrl-C; calling it again resumes it
_COUNTS_FRESH_S = 300.0
_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}


class KafkaProducer:
    """Produces columns. The first error of a record is kept until flush, commit or abort answers for it.

    librdkafka cannot send the timestamp 0 (it stamps the present instead), so the epoch goes out as 1 ms.
    """

    def __init__(
        self,
        make: Callable[[Callable[[KafkaError | None, Message], None]], Producer],
        errors: Translator,
        *,
        transactional: bool,
        timeout_s: float,
    ) -> None:
        self._errors, self._transactional, self._timeout_s = errors, transactional, timeout_s
        self._failed: StreampipeError | None = None
        self._too_large = 0
        self._open = self._closed = self._worn = False
        self._partitions: dict[str, int] = {}
        self._counted_at = 0.0
        self._make = make
        self._producer = self._opened()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _opened(self) -> Producer:
        return self._errors.open(lambda: self._make(self._on_delivery))

    def _start(self) -> None:
        self._count_partitions()
        if self._transactional:
            self._in_time("starting transactions", self._producer.init_transactions)

    def produce(self, batch: ProduceBatch) -> None:
        """Queue the records. Raises UnknownTopic; every other error waits for flush or commit."""
        if self._transactional and not self._open:
            raise ConfigError("a transactional producer produces inside transactions only; call begin() first")
        if not len(batch):
            return
        try:
            partitions = batch.partitions
            if partitions is None:
                partitions = partitions_of(batch.keys, self._partition_count(batch.topic), repeat(ANY_PARTITION))
            else:
                self._partition_count(batch.topic)
            self._queue(batch, partitions)
            self._serve(0)
        except StreampipeError as error:
            if self._transactional:
                self._failed = self._failed or error
            raise

    def _queue(self, batch: ProduceBatch, partitions: Any) -> None:
        produce, topic = self._producer.produce, batch.topic
        value = key = None
        try:
            # `callback` and `on_delivery`, two names of one thing, come before the timestamp
            if batch.headers is None:
                for value, key, partition, stamp in self._rows(batch, partitions):
                    try:
                        produce(topic, value, key, partition, None, None, stamp)
                    except BufferError:
                        self._produce_when_there_is_room(topic, value, key, partition, None, None, stamp)
                return
            for (value, key, *rest), headers in zip(self._rows(batch, partitions), batch.headers, strict=True):
                try:
                    produce(topic, value, key, rest[0], None, None, rest[1], list(headers))
                except BufferError:
                    self._produce_when_there_is_room(topic, value, key, rest[0], None, None, rest[1], list(headers))
        except KafkaException as exception:
            self._partitions.clear()
            error = kafka_error(exception)
            if error is None:
                raise
            doing = f"producing a record of {len(value or b'') + len(key or b'')} bytes to {topic}"
            self._failed = self._failed or self._errors.of(error, doing, topic)

    def _rows(self, batch: ProduceBatch, partitions: Any) -> Iterator[tuple[Any, ...]]:
        stamps: Any = batch.timestamps if batch.timestamps is not None else repeat(0, len(batch))  # 0: the present
        if batch.timestamps is not None and min(stamps) <= 0:
            stamps = [0 if t == NO_TIMESTAMP else t or 1 for t in stamps]
        return zip(batch.values, batch.keys, partitions, stamps, strict=True)

    def _produce_when_there_is_room(self, topic: str, *row: Any) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            self._serve(0.05)
            try:
                self._producer.produce(topic, *row)
            except BufferError:
                if time.monotonic() > deadline:
                    raise self._errors.unreachable(f"the queue stayed full for {self._timeout_s:.0f} s") from None
            else:
                return

    def flush(self) -> None:
        """Wait until every record is acknowledged. Raises the first error of a record, or Unavailable."""
        deadline = time.monotonic() + self._timeout_s
        while self._served(lambda: self._producer.flush(_SLICE_S)):
            if time.monotonic() > deadline:
                raise self._errors.unreachable(f"records unacknowledged for {self._timeout_s:.0f} s")
        if self._failed is not None:
            failed = self._failed
            if not self._transactional:
                self._failed, self._too_large = None, 0
            raise failed

    def _serve(self, wait_s: float) -> None:
        """Let librdkafka call back."""
        self._served(lambda: self._producer.poll(wait_s))

    def _served(self, call: Callable[[], int]) -> int:
        """What the call gives; 0 when it raised what is a record's error from then on.

        A fatal error, as that of a zombie, is raised by whichever call it finds, whatever `error_cb` there is: as a
        KafkaError, which is no exception class, so that only a bare except sees it. Delivery callbacks that come after
        it in the same call die of it, or undo it: then it is a SystemError that arrives, with its cause or without.
        """
        try:
            return call()
        except:  # noqa: E722 - see above; what is none of this is raised again
            raised: Any = sys.exc_info()[1]
            told = [raised, getattr(raised, "__cause__", None)]
            errors = [e if isinstance(e, KafkaError) else kafka_error(e) for e in told if e is not None]
            error = next(filter(None, errors), None)
            if error is None and not isinstance(raised, SystemError):
                raise
        lost = Fenced(f"producing on broker {self._errors.name}: a fatal error; open another client")
        self._failed = self._failed or (self._classified(error, "producing") if error else lost)
        return 0

    def begin(self) -> None:
        """Start a transaction."""
        self._errors.call("beginning a transaction", self._producer.begin_transaction)
        self._open, self._failed, self._too_large = True, None, 0

    def send_offsets(self, offsets: Mapping[TopicPartition, int], group_metadata: object) -> None:
        """Make offsets part of the transaction. Raises Fenced when the membership is over."""
        self._refuse_failed()
        if group_metadata is None:
            self._failed = Fenced("offsets of a consumer that owns nothing cannot be committed")
            raise self._failed
        places = [KafkaPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items()]
        if places:
            send = self._producer.send_offsets_to_transaction
            try:
                self._in_time("sending offsets", lambda wait: send(places, group_metadata, wait))
            except TransactionAborted as error:
                self._failed = self._failed or error  # so that abort() replaces the client: see _reopen
                raise

    def commit(self) -> None:
        """Commit. Raises TransactionAborted or Fenced: nothing is visible; Unavailable: the outcome is unknown."""
        self._serve(0)
        self._refuse_failed()
        self._in_time("committing a transaction", self._producer.commit_transaction)
        self._open = False

    def abort(self) -> None:
        """Abort the open transaction, if any; a fenced producer's is already aborted. Unavailable: call again."""
        if self._open:
            self._worn = self._failed is not None
            try:
                self._in_time("aborting a transaction", self._producer.abort_transaction)
            except Fenced as error:
                self._worn = False
                log.info("%s", error)
            self._open, self._failed = False, None
        if self._worn:
            self._reopen()
            self._worn = False

    def _reopen(self) -> None:
        """Replace the client after a record failed: librdkafka's next transaction would fail as well.

        It goes on with the sequence numbers of the refused request, and the broker finds the gap.
        """
        close_within_deadline(self._producer.close, self._errors.name)
        self._producer = self._opened()
        self._start()

    def close(self) -> None:
        """Abort what is open, drop what is not acknowledged, release everything within ten seconds."""
        if not self._closed:
            self._closed = True
            close_within_deadline(self._release, self._errors.name)

    def _release(self) -> None:
        if self._open:
            self._producer.abort_transaction(5)
        self._producer.purge()
        self._producer.flush(0)
        self._producer.close()

    def _refuse_failed(self) -> None:
        """A failed record must not be committed past, although librdkafka would commit the others."""
        if not self._open:
            raise ConfigError("no transaction is open; call begin() first")
        if isinstance(self._failed, TransactionAborted | Unavailable):
            raise self._failed
        if self._failed is not None:
            raise TransactionAborted(f"a record failed: {self._failed}") from self._failed

    def _in_time(self, doing: str, call: Callable[[float], object]) -> None:
        """Call again while it can be retried, until the transaction's time-out; then Unavailable."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                call(_SLICE_S)
            except KafkaException as exception:
                error = kafka_error(exception)
                if error is None:
                    raise
                if error.retriable() and not error.fatal() and not error.txn_requires_abort():
                    if time.monotonic() > deadline:
                        raise self._errors.unreachable(f"{doing}: {error.str()}") from None
                    time.sleep(0.02)
                    continue
                raise self._classified(error, doing) from None
            return

    def _classified(self, error: KafkaError, doing: str) -> StreampipeError:
        failed = self._errors.of(error, doing)
        if isinstance(failed, Fenced | ConfigError) or error.code() in PRODUCER_OVER | MEMBERSHIP_OVER:
            return failed
        if error.txn_requires_abort():
            return TransactionAborted(f"{self._failed or failed}")
        return failed

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None or error.code() in _PURGED:
            return
        self._partitions.clear()
        topic = message.topic()
        size = len(message.value() or b"") + len(message.key() or b"")
        too_large = error.code() in TOO_LARGE and size > self._too_large  # it fails its neighbours as well
        if self._failed is None or too_large:
            doing = f"producing a record of {size} bytes to {topic}"
            self._failed = self._errors.of(error, doing, topic)
            self._too_large = size

    def _partition_count(self, topic: str) -> int:
        if topic not in self._partitions or time.monotonic() - self._counted_at > _COUNTS_FRESH_S:
            self._count_partitions()
        try:
            return self._partitions[topic]
        except KeyError:
            raise UnknownTopic(topic) from None

    def _count_partitions(self) -> None:
        """Partition counts of all topics: asking for one topic by name would create it on some brokers."""
        listed = self._errors.call("looking up topics", lambda: self._producer.list_topics(timeout=REQUEST_TIMEOUT_S))
        before = {name: count for name, count in self._partitions.items() if name in listed.topics}
        now = {name: len(topic.partitions) for name, topic in listed.topics.items() if topic.error is None}
        self._partitions = before | now
        self._counted_at = time.monotonic()
