"""A worker process of the tests: copies a topic exactly once, committing its input's offsets with its output.

python -m tests.brokers.copy_worker BROKER_FILE GROUP SOURCE SINK TRANSACTIONAL_ID
"""

import sys
from collections.abc import Sequence

from streampipe.brokers.local import LocalBroker
from streampipe.brokers.port import Consumer, Producer
from streampipe.errors import TransactionAborted
from streampipe.records import ProduceBatch, TopicPartition


class Silent:
    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None: ...
    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None: ...
    def on_lost(self, partitions: Sequence[TopicPartition]) -> None: ...


def copy_some(consumer: Consumer, producer: Producer, sink: str) -> None:
    batches = consumer.poll(20, 0.1)
    if not batches:
        return
    offsets: dict[TopicPartition, int] = {}
    producer.begin()
    for batch in batches:
        producer.produce(ProduceBatch(sink, batch.keys, batch.values))
        for partition, offset in zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True):
            offsets[TopicPartition(batch.topic, partition)] = offset + 1
    try:
        producer.send_offsets(offsets, consumer.group_metadata())
        producer.commit()
    except TransactionAborted:
        producer.abort()
        owned = consumer.assignment()
        for tp, offset in (dict.fromkeys(owned, 0) | consumer.committed(owned)).items():
            consumer.seek(tp, offset)


def main(path: str, group: str, source: str, sink: str, transactional_id: str) -> None:
    broker = LocalBroker(path, session_timeout_s=1.0, transaction_timeout_s=2.0)
    consumer = broker.consumer(group)
    producer = broker.producer(transactional_id)
    consumer.subscribe([source], Silent())
    while True:
        copy_some(consumer, producer, sink)
        sys.stdout.write(f"{len(consumer.assignment())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
