"""The producer: every produce is one short write, so a record is in the log when the call returns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from streampipe.brokers.local import groups, log, transactions
from streampipe.brokers.local.chunks import Encoded, encode, lengths_of, pack_headers, sizes_of
from streampipe.brokers.local.database import Database
from streampipe.brokers.port import Offsets, TopicInfo
from streampipe.clock import Clock
from streampipe.errors import StreampipeError, TransactionAborted, UnknownTopic
from streampipe.records import IntArray, ProduceBatch, TopicPartition, partitions_of

MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's default of the topic setting max.message.bytes."""


class LocalProducer:
    """`Producer` on the embedded log. A batch with a bad record is refused whole."""

    def __init__(self, db: Database, clock: Clock, transactional_id: str | None, timeout_ms: int) -> None:
        self._db = db
        self._clock = clock
        self._id = transactional_id
        self._timeout_ms = timeout_ms
        self._epoch = 0
        self._begun = False
        self._txn: int | None = None
        self._failure: StreampipeError | None = None
        self._keyless = count()
        if transactional_id is not None:
            with db.write():
                self._epoch = transactions.claim(db, transactional_id)

    def produce(self, batch: ProduceBatch) -> None:
        """Append the records."""
        if self._id is not None and not self._begun:
            raise RuntimeError("a transactional producer produces inside of a transaction: call begin() first")
        topic = log.topic(self._db, batch.topic)
        if not len(batch):
            return
        try:
            blocks = self._blocks(batch, topic)
        except StreampipeError as error:
            self._failure = self._failure or error
            return
        ids = log.partition_ids(self._db, [TopicPartition(topic.name, p) for p in blocks])
        with self._db.write():
            txn = self._join_transaction()
            for tp, partition_id in ids.items():
                first = log.append(self._db, partition_id, blocks[tp.partition], txn)
                if first is None:
                    raise UnknownTopic(topic.name)
                if txn is not None:
                    transactions.add_partition(self._db, txn, partition_id, first)
                self._expire(topic, partition_id)
        self._txn = txn

    def _blocks(self, batch: ProduceBatch, topic: TopicInfo) -> dict[int, list[Encoded]]:
        """The batch as encoded chunks by partition."""
        headers = None if batch.headers is None else [pack_headers(h) for h in batch.headers]
        if headers is not None and not any(headers):
            headers = None
        _check_sizes(topic, [batch.keys, batch.values] + ([headers] if headers else []))
        timestamps = self._timestamps(batch)
        blocks = {}
        for partition, rows in self._placed(batch, topic):
            at = rows.tolist()
            blocks[partition] = list(
                encode(
                    timestamps[rows],
                    [batch.keys[i] for i in at],
                    [batch.values[i] for i in at],
                    None if headers is None else [headers[i] for i in at],
                )
            )
        return blocks

    def _timestamps(self, batch: ProduceBatch) -> IntArray:
        now = self._clock.now_ms()
        if batch.timestamps is None:
            return np.full(len(batch), now, np.int64)
        given = np.asarray(batch.timestamps, np.int64)
        return np.where(given < 0, now, given)

    def _placed(self, batch: ProduceBatch, topic: TopicInfo) -> list[tuple[int, IntArray]]:
        """Rows of each partition, in their order."""
        if batch.partitions is not None:
            partitions = np.asarray(batch.partitions, np.int64)
            if partitions.min() < 0 or partitions.max() >= topic.partitions:
                raise StreampipeError(
                    f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}; "
                    f"a record was meant for one outside of them"
                )
        else:
            spread = (number % topic.partitions for number in self._keyless)
            partitions = np.array(partitions_of(batch.keys, topic.partitions, spread), np.int64)
        order = np.argsort(partitions, kind="stable")
        used, starts = np.unique(partitions[order], return_index=True)
        return list(zip(used.tolist(), np.split(order, starts[1:]), strict=True))

    def _expire(self, topic: TopicInfo, partition_id: int) -> None:
        retention_ms = int(topic.config.get("retention.ms", -1))
        if retention_ms >= 0 and "delete" in topic.config.get("cleanup.policy", "delete"):
            log.expire(self._db, partition_id, self._clock.now_ms() - retention_ms)

    def flush(self) -> None:
        """Raise what went wrong since the last flush; everything else is in the log already."""
        failure = self._failure
        if failure is not None:
            if not self._begun:
                self._failure = None
            raise failure

    def begin(self) -> None:
        """Start a transaction; it reaches the broker, and its timeout runs, with its first record or offset."""
        if self._id is None or self._begun:
            raise RuntimeError("begin() needs a transactional id and no transaction open")
        self._begun = True

    def send_offsets(self, offsets: Offsets, group_metadata: object) -> None:
        """Make consumed offsets part of the transaction."""
        if not self._begun or not isinstance(group_metadata, groups.Membership):
            raise RuntimeError("send_offsets() needs a transaction and the token of Consumer.group_metadata()")
        with self._db.write():
            txn = self._join_transaction()
            assert txn is not None
            groups.check_owner(self._db, group_metadata, offsets)
            transactions.add_offsets(self._db, txn, group_metadata.group, offsets)
        self._txn = txn

    def _join_transaction(self) -> int | None:
        """Inside a write: the open transaction, checked; None without a transactional id."""
        if self._id is None:
            return None
        transactions.check_epoch(self._db, self._id, self._epoch)
        if self._txn is None:
            return transactions.start(self._db, self._id, self._clock.now_ms() + self._timeout_ms)
        transactions.check_open(self._db, self._id, self._txn)
        return self._txn

    def commit(self) -> None:
        """Commit the transaction."""
        if self._id is None or not self._begun:
            raise RuntimeError("commit() without begin()")
        if self._failure is not None:
            raise TransactionAborted(f"transactional id {self._id!r}: {self._failure}") from self._failure
        with self._db.write():
            transactions.check_epoch(self._db, self._id, self._epoch)
            if self._txn is not None:
                transactions.check_open(self._db, self._id, self._txn)
                transactions.commit(self._db, self._txn)
        self._ended()

    def abort(self) -> None:
        """Abort the transaction; fine when there is none, or somebody else did already."""
        if self._txn is not None:
            with self._db.write():
                transactions.abort(self._db, self._txn)
        self._ended()

    def _ended(self) -> None:
        self._begun, self._txn, self._failure = False, None, None

    def close(self) -> None:
        """Abort an open transaction and close the connection."""
        try:
            self.abort()
        finally:
            self._db.close()


def _check_sizes(topic: TopicInfo, columns: list[Sequence[bytes | None]]) -> None:
    """Raise StreampipeError when a record is larger than the topic takes."""
    limit = int(topic.config.get("max.message.bytes", MAX_MESSAGE_BYTES))
    largest = int(sizes_of([lengths_of(column) for column in columns]).max())
    if largest > limit:
        raise StreampipeError(
            f"topic {topic.name!r}: a record of {largest} bytes is larger than max.message.bytes ({limit})"
        )
