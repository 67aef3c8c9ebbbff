from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from benchmarks import check, data
from benchmarks.contestants import Contestant, contestants
from benchmarks.kafka import Kafka, cleared
from benchmarks.measure import measure
from benchmarks.setup import PARTITIONS

RECORDS = 20_000
INPUT = data.Input(RECORDS)


@pytest.fixture(scope="module")
def kafka(kafka_bootstrap: str, registry_url: str) -> Iterator[Kafka]:
    with cleared(Kafka(kafka_bootstrap, registry_url)) as kafka:
        for what in dict.fromkeys(c.input(RECORDS, RECORDS) for c in contestants(workers2=True)):
            kafka.fill(what, lambda _: None)
        yield kafka


@pytest.mark.kafka
@pytest.mark.registry
@pytest.mark.parametrize("contestant", contestants(workers2=True), ids=lambda contestant: contestant.key)
def test_every_contestant_gives_the_right_output_and_leaves_nothing_behind(
    kafka: Kafka, contestant: Contestant
) -> None:
    figures = measure(kafka, contestant, contestant.input(RECORDS, RECORDS), 1, 90, lambda _: None)
    assert figures.wrong == ()
    assert figures.finished
    assert figures.records == RECORDS
    assert figures.cpu is not None
    assert figures.cpu > 0
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    assert {t for t in topics if t.startswith(f"{kafka.prefix}-") and "flights" not in t} <= {
        f"{kafka.prefix}-airlines"
    }


@pytest.mark.kafka
@pytest.mark.registry
def test_a_contestant_that_dies_is_named_with_its_last_words(kafka: Kafka) -> None:
    contestant = next(c for c in contestants(workers2=False) if c.key == "a:hand-written")
    dying = Contestant("dying", "a", (contestant.command[0], "-c", "raise SystemExit('out of luck')"), "output")
    figures = measure(kafka, dying, INPUT, 1, 30, lambda _: None)
    assert not figures.finished
    assert figures.wrong == ("ended by itself with exit code 1: out of luck",)


@pytest.mark.kafka
@pytest.mark.registry
def test_the_check_waits_for_a_transaction_that_is_about_to_be_committed(kafka: Kafka) -> None:
    topic = f"{kafka.prefix}-flights-open"  # left for the end, as the input is
    kafka.create(topic, PARTITIONS, {})
    producer: Any = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"value", partition=0)
    producer.flush(30)
    assert kafka.end_offsets(topic, committed=True) != kafka.end_offsets(topic)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(kafka.await_no_open_transaction, topic)
        assert not wait([waiting], 0.5).done
        producer.commit_transaction(30)
        waiting.result(30)
    assert kafka.end_offsets(topic, committed=True) == kafka.end_offsets(topic)


def test_the_check_finds_what_is_missing_unexpected_and_wrong() -> None:
    want = data.expected("a", INPUT)
    assert check.compare(want, want, data.GROUPS["a"]) == []
    spoiled = want.with_columns(
        dest=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("XXX")).otherwise("dest"),
        total=pl.when(pl.int_range(pl.len()) == 1).then(pl.col("total") + 1).otherwise("total"),
    )
    found = check.compare(spoiled, want, data.GROUPS["a"])
    assert [line.split(" groups")[0] for line in found] == ["1 missing", "1 unexpected", "1 wrong"]
