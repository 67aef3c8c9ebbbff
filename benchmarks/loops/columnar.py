"""Columns without a framework: the same clients and codec as streampipe, and nothing around them.

Usage: python -m benchmarks.loops.columnar derive|window
"""

from __future__ import annotations

import struct
import sys
import time
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from benchmarks import events
from benchmarks.loops import clients
from benchmarks.setup import Setup, setup_of_this_process

_CHUNKS = 5
"""consume() calls a batch."""


@dataclass(slots=True)
class Batch:
    """Records of one poll as lists."""

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)


def poll(consumer: Any, consumed: dict[int, int]) -> Batch:
    """Up to 5,000 records; several small calls, since their messages come from a warm cache."""
    batch = Batch()
    for chunk in range(_CHUNKS):
        messages = consumer.consume(clients.CHUNK, 0 if chunk else 0.02)
        batch.values += [message.value()[5:] for message in messages]
        batch.keys += [message.key() for message in messages]
        batch.timestamps += [message.timestamp()[1] for message in messages]
        partitions = [message.partition() for message in messages]
        consumed.update(zip(partitions, [message.offset() for message in messages], strict=True))
        batch.partitions += partitions
        if len(messages) < clients.CHUNK:
            break
    return batch


def encode(columns: dict[str, Any], schema: str, frame: bytes) -> list[bytes]:
    """Columns to framed Avro."""
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    values = pyruhvro.serialize_record_batch(rows, schema, 1)[0]
    head, nothing = pa.scalar(frame, values.type), pa.scalar(b"", values.type)
    framed: list[bytes] = pc.binary_join_element_wise(head, values, nothing).to_pylist()
    return framed


def derive(setup: Setup) -> None:
    """Job (a), at-least-once, until SIGTERM."""
    producer, frame = clients.idempotent_producer(setup), events.frame_of(setup.output_schema)
    produce, output, partitions = producer.produce, setup.output, clients.Partitions()
    with clients.consuming(setup) as consumer:
        committer = clients.Committer(setup, consumer, producer)
        while True:
            batch = poll(consumer, committer.consumed)
            if batch.values:
                flights = pyruhvro.deserialize_array(batch.values, events.FLIGHT)
                departed = pc.is_valid(flights["dep_delay"])
                columns = {"origin": "origin", "dest": "dest", "late": "dep_delay"}
                late = {name: flights[column].filter(departed) for name, column in columns.items()}
                kept = departed.to_pylist()
                rows = zip(
                    encode(late, events.LATE, frame), compress(batch.keys, kept), compress(batch.timestamps, kept),
                    strict=True,
                )  # fmt: skip
                for value, key, timestamp in rows:
                    produce(output, value, key, partitions[key], None, None, timestamp)
                producer.poll(0)
            committer.poll()


class Window:
    """Job (c), exactly-once: groups of a batch by Polars, merged into a dictionary."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._producer = clients.transactional_producer(setup)
        self._frame = events.frame_of(setup.output_schema)
        self._partitions = clients.Partitions()
        self._state: dict[tuple[int, str, int], tuple[int, int, int]] = {}
        self._dirty: set[tuple[int, str, int]] = set()
        self._consumed: dict[int, int] = {}

    def run(self) -> None:
        """Until SIGTERM."""
        with clients.consuming(self._setup) as consumer:
            began = 0.0
            while True:
                idle = not self._consumed
                batch = poll(consumer, self._consumed)
                if batch.values:
                    if idle:
                        self._producer.begin_transaction()
                        began = time.monotonic()
                    self._add(batch)
                if self._consumed and time.monotonic() - began > clients.TRANSACTION_S:
                    if self._dirty:
                        self._emit()
                    self._commit(consumer)

    def _add(self, batch: Batch) -> None:
        flights = pyruhvro.deserialize_array(batch.values, events.FLIGHT)
        groups = (
            pl.DataFrame(
                {
                    "partition": pl.Series(batch.partitions, dtype=pl.Int64),
                    "origin": pl.from_arrow(flights["origin"]),
                    "start": pl.Series(batch.timestamps, dtype=pl.Int64) // clients.HOUR_MS * clients.HOUR_MS,
                    "delay": pl.from_arrow(flights["dep_delay"]),
                }
            )
            .filter(pl.col("delay").is_not_null())
            .group_by("partition", "origin", "start")
            .agg(pl.len(), pl.col("delay").sum().alias("sum"), pl.col("delay").max().alias("max"))
        )
        state = self._state
        for partition, origin, start, flights_, total, worst in groups.iter_rows():
            key = partition, origin, start
            before = state.get(key, (0, 0, worst))
            state[key] = before[0] + flights_, before[1] + total, max(before[2], worst)
            self._dirty.add(key)

    def _emit(self) -> None:
        keys = list(self._dirty)
        totals = [self._state[key] for key in keys]
        partitions, origins, starts = zip(*keys, strict=True)
        flights, total, worst = zip(*totals, strict=True)
        names, start = [origin.encode() for origin in origins], pa.array(starts, pa.int64())
        columns = {
            "origin": pa.array(origins),
            "window_start": start.cast(pa.timestamp("ms")),
            "window_end": pc.add(start, clients.HOUR_MS).cast(pa.timestamp("ms")),
            "flights": pa.array(flights, pa.int64()),
            "total": pa.array(total, pa.int64()),
            "worst": pa.array(worst, pa.int32()),
        }
        values, pack = encode(columns, events.HOURLY, self._frame), struct.Struct(">qqq").pack
        changes = [
            {"value": pack(*change), "key": b"%d|%s" % (at, name), "partition": partition}
            for change, at, name, partition in zip(totals, starts, names, partitions, strict=True)
        ]
        updates = [
            {"value": value, "key": name, "partition": self._partitions[name]}
            for value, name in zip(values, names, strict=True)
        ]
        self._producer.produce_batch(self._setup.changelog, changes)
        self._producer.produce_batch(self._setup.output, updates)
        self._dirty.clear()

    def _commit(self, consumer: Any) -> None:
        offsets = clients.offsets(self._setup.flights, self._consumed)
        self._producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        self._producer.commit_transaction(30)
        self._consumed.clear()


if __name__ == "__main__":
    run = derive if sys.argv[1] == "derive" else lambda setup: Window(setup).run()
    run(setup_of_this_process())
