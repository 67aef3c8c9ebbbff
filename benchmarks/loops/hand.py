"""What people write by hand: confluent-kafka and fastavro, a record at a time, tuned as well as that goes.

Usage: python -m benchmarks.loops.hand derive|join|window|function
"""

from __future__ import annotations

import io
import json
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from benchmarks import events
from benchmarks.loops import clients
from benchmarks.setup import CONSUMER, Setup, setup_of_this_process

Event = dict[str, Any]
Transform = Callable[[Event], Event | None]
Key = tuple[int, str, int]
Totals = tuple[int, int, int]


def decoder(schema: str) -> Callable[[bytes], Any]:
    """Framed Avro to a dictionary."""
    parsed, read = fastavro.parse_schema(json.loads(schema)), fastavro.schemaless_reader

    def decode(value: bytes) -> Any:
        buffer = io.BytesIO(value)
        buffer.seek(5)
        return read(buffer, parsed, None)

    return decode


def encoder(schema: str, schema_id: int) -> Callable[[Event], bytes]:
    """A dictionary to framed Avro."""
    parsed, write, frame = (
        fastavro.parse_schema(json.loads(schema)),
        fastavro.schemaless_writer,
        events.frame_of(schema_id),
    )

    def encode(event: Event) -> bytes:
        buffer = io.BytesIO()
        buffer.write(frame)
        write(buffer, parsed, event)
        return buffer.getvalue()

    return encode


def derive(flight: Event) -> Event | None:
    """Job (a)."""
    if flight["dep_delay"] is None:
        return None
    return {"origin": flight["origin"], "dest": flight["dest"], "late": flight["dep_delay"]}


def joined(setup: Setup) -> Transform:
    """Job (b), with the table in a dictionary."""
    names = airlines(setup)

    def join(flight: Event) -> Event | None:
        name = names.get(flight["carrier"])
        if name is None:
            return None
        return {
            "origin": flight["origin"],
            "dest": flight["dest"],
            "carrier": flight["carrier"],
            "flight": flight["flight"],
            "dep_delay": flight["dep_delay"],
            "name": name,
        }

    return join


def airlines(setup: Setup) -> dict[str, str]:
    """The table's topic from its first to its last record."""
    settings = {**CONSUMER, "group.id": setup.group, "enable.partition.eof": True}
    consumer: Any = Consumer({"bootstrap.servers": setup.bootstrap, **settings})
    decode, table = decoder(events.AIRLINE), {}
    consumer.assign([TopicPartition(setup.airlines, 0, OFFSET_BEGINNING)])
    while True:
        for message in consumer.consume(clients.CHUNK, 0.1):
            if message.error() is None:
                airline = decode(message.value())
                table[airline["carrier"]] = airline["name"]
            elif message.error().code() == KafkaError._PARTITION_EOF:
                consumer.close()
                return table


def forward(setup: Setup, transform: Transform, schema: str) -> None:
    """Jobs (a), (b) and (d): each record to at most one, at-least-once, until SIGTERM."""
    producer, decode, encode = (
        clients.idempotent_producer(setup),
        decoder(events.FLIGHT),
        encoder(schema, setup.output_schema),
    )
    partitions, output = clients.Partitions(), setup.output
    with clients.consuming(setup) as consumer:
        committer = clients.Committer(setup, consumer, producer)
        while True:
            for message in consumer.consume(clients.CHUNK, 0.1):
                event = transform(decode(message.value()))
                if event is not None:
                    key = message.key()
                    producer.produce(output, encode(event), key, partitions[key], None, None, message.timestamp()[1])
                committer.consumed[message.partition()] = message.offset()
            producer.poll(0)
            committer.poll()


class Window:
    """Job (c), exactly-once: state in a dictionary, its changes in a changelog, a commit every 100 ms."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._producer = clients.transactional_producer(setup)
        self._decode, self._encode = decoder(events.FLIGHT), encoder(events.HOURLY, setup.output_schema)
        self._partitions = clients.Partitions()
        self._state: dict[Key, Totals] = {}
        self._dirty: set[Key] = set()
        self._consumed: dict[int, int] = {}

    def run(self) -> None:
        """Until SIGTERM."""
        with clients.consuming(self._setup) as consumer:
            began = 0.0
            while True:
                messages = consumer.consume(clients.CHUNK, 0.02)
                if messages and not self._consumed:
                    self._producer.begin_transaction()
                    began = time.monotonic()
                for message in messages:
                    self._add(message)
                if self._consumed and time.monotonic() - began > clients.TRANSACTION_S:
                    self._emit()
                    self._commit(consumer)

    def _add(self, message: Any) -> None:
        flight, partition = self._decode(message.value()), message.partition()
        self._consumed[partition] = message.offset()
        delay = flight["dep_delay"]
        if delay is None:
            return
        key = partition, flight["origin"], message.timestamp()[1] // clients.HOUR_MS * clients.HOUR_MS
        flights, total, worst = self._state.get(key, (0, 0, delay))
        self._state[key] = flights + 1, total + delay, delay if delay > worst else worst  # noqa: FURB136 - max() is a call a record
        self._dirty.add(key)

    def _emit(self) -> None:
        produce, pack = self._producer.produce, struct.Struct(">qqq").pack
        for key in self._dirty:
            (partition, origin, start), totals = key, self._state[key]
            flights, total, worst = totals
            name = origin.encode()
            produce(self._setup.changelog, pack(*totals), b"%d|%s" % (start, name), partition)
            event = {
                "origin": origin,
                "window_start": start,
                "window_end": start + clients.HOUR_MS,
                "flights": flights,
                "total": total,
                "worst": worst,
            }
            produce(self._setup.output, self._encode(event), name, self._partitions[name])
        self._dirty.clear()

    def _commit(self, consumer: Any) -> None:
        offsets = clients.offsets(self._setup.flights, self._consumed)
        self._producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        self._producer.commit_transaction(30)
        self._consumed.clear()


def main(job: str, setup: Setup) -> None:
    """Run one job until SIGTERM."""
    if job == "derive":
        forward(setup, derive, events.LATE)
    elif job == "join":
        forward(setup, joined(setup), events.NAMED)
    elif job == "function":
        forward(setup, events.alert, events.ALERT)
    else:
        Window(setup).run()


if __name__ == "__main__":
    main(sys.argv[1], setup_of_this_process())
