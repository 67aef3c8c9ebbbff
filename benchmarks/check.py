"""Whether a contestant's output is right, read back with read_committed and compared with the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pyruhvro
from confluent_kafka import Consumer, KafkaError, TopicPartition

from benchmarks import data
from benchmarks.kafka import Kafka
from benchmarks.setup import CONSUMER, PARTITIONS, Setup

_CHUNK = 50_000
_MEASURE = {"a": "late", "b": "dep_delay", "d": "late"}


def differences(kafka: Kafka, setup: Setup, job: str, what: data.Input) -> list[str]:
    """What is not as it must be, in words; empty when everything is right."""
    kafka.await_no_open_transaction(setup.output)
    chunks = (rows(kafka, values) for values in committed(setup))
    got = windows(chunks) if job == "c" else totals(chunks, job)
    return compare(got, data.expected(job, what), data.GROUPS[job])


def compare(got: pl.DataFrame, want: pl.DataFrame, group: list[str]) -> list[str]:
    """Groups that are missing, that nobody expects, and that have other numbers, each with an example."""
    both = want.join(got, on=group, suffix="_got")
    numbers = [column for column in want.columns if column not in group]
    found = {
        "missing": want.join(got, on=group, how="anti"),
        "unexpected": got.join(want, on=group, how="anti"),
        "wrong": both.filter(pl.any_horizontal(pl.col(n).ne_missing(pl.col(f"{n}_got")) for n in numbers)),
    }
    return [f"{len(rows)} {what} groups, such as {rows.row(0)}" for what, rows in found.items() if len(rows)]


def totals(chunks: Iterator[pl.DataFrame], job: str) -> pl.DataFrame:
    """Count and sum by group, chunk by chunk: the output need not fit into memory."""
    group, late = data.GROUPS[job], pl.col(_MEASURE[job]).cast(pl.Int64)
    parts = [
        chunk.group_by(group).agg(pl.len().cast(pl.Int64).alias("n"), late.sum().alias("total")) for chunk in chunks
    ]
    if not parts:
        return data.expected(job, data.Input(1)).clear()
    return pl.concat(parts).group_by(group).agg(pl.col("n").sum(), pl.col("total").sum())


def windows(chunks: Iterator[pl.DataFrame]) -> pl.DataFrame:
    """The last update of each window; updates of one key are in one partition, hence in order."""
    parts = [
        chunk.select(
            "origin",
            pl.col("window_start").cast(pl.Datetime("ms")).dt.epoch("ms"),
            *(
                pl.col(field).cast(pl.Int64).alias(name)
                for name, field in zip(("n", "total", "worst"), _AGGREGATES, strict=True)
            ),
        )
        for chunk in chunks
    ]
    if not parts:
        return data.expected("c", data.Input(1)).clear()
    return pl.concat(parts).unique(["origin", "window_start"], keep="last", maintain_order=True)


_AGGREGATES = ("flights", "total", "worst")


def rows(kafka: Kafka, values: list[bytes]) -> pl.DataFrame:
    """Framed values as columns. Raises ValueError when they are not of one schema."""
    ids = {value[:5] for value in values}
    if len(ids) != 1:
        raise ValueError(f"the output mixes {len(ids)} schemas")
    schema = kafka.schema(int.from_bytes(ids.pop()[1:], "big"))
    frame = pl.from_arrow(pyruhvro.deserialize_array([value[5:] for value in values], schema))
    assert isinstance(frame, pl.DataFrame)
    return frame


def committed(setup: Setup) -> Iterator[list[bytes]]:
    """Every committed value of the output, in order by partition, some at a time."""
    settings = {**CONSUMER, "enable.partition.eof": True, "isolation.level": "read_committed", "log_level": 0}
    consumer: Any = Consumer({"bootstrap.servers": setup.bootstrap, "group.id": setup.group, **settings})
    consumer.assign([TopicPartition(setup.output, partition, 0) for partition in range(PARTITIONS)])
    values: list[bytes] = []
    ended: set[int] = set()
    while len(ended) < PARTITIONS:
        for message in consumer.consume(1_000, 0.1):
            if message.error() is None:
                values.append(message.value())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            else:
                raise RuntimeError(f"the output cannot be read: {message.error()}")
        if len(values) >= _CHUNK:
            yield values
            values = []
    if values:
        yield values
    consumer.close()
