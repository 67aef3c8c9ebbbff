"""Conformance: producing, placing and reading records."""

import time

import pytest

from streampipe.errors import StreampipeError, UnknownTopic
from streampipe.records import NO_TIMESTAMP, TopicPartition, partition_of, records_of
from tests.brokers.helpers import Lab, batch, numbered, read_to, unique


class LogConformance:
    def test_records_of_a_partition_keep_their_order(self, lab: Lab) -> None:
        topic = lab.topic(3)
        keys = [f"k{i % 7}".encode() for i in range(3000)]
        values = numbered("v", 3000)
        for start in (0, 1000, 2000):
            lab.produce(topic, *values[start : start + 1000], keys=keys[start : start + 1000])
        records = lab.read(*(TopicPartition(topic, p) for p in range(3)))
        for p in range(3):
            own = [record for record in records if record.partition == p]
            assert [r.value for r in own] == [v for k, v in zip(keys, values, strict=True) if partition_of(k, 3) == p]
            assert [r.offset for r in own] == list(range(len(own)))

    def test_a_key_is_placed_by_crc32_whatever_the_broker(self, lab: Lab) -> None:
        topic = lab.topic(4)
        placed = {b"AA": 1, b"DL": 1, b"UA": 0, b"": 0, b"\xff\x00": 1, b"123456789": 2}
        lab.produce(topic, *numbered("v", len(placed)), keys=list(placed))
        records = lab.read(*(TopicPartition(topic, p) for p in range(4)))
        assert {r.key: r.partition for r in records} == placed

    def test_records_without_key_go_to_some_partition(self, lab: Lab) -> None:
        topic = lab.topic(3)
        lab.produce(topic, *numbered("v", 50), keys=[None] * 50)
        records = lab.read(*(TopicPartition(topic, p) for p in range(3)))
        assert sorted(r.value or b"" for r in records) == sorted(numbered("v", 50))
        assert {r.key for r in records} == {None}

    def test_an_explicit_partition_wins_over_the_key(self, lab: Lab) -> None:
        topic = lab.topic(4)
        lab.produce(topic, b"v", b"w", keys=[b"AA", b"AA"], partitions=[3, 1])
        records = lab.read(*(TopicPartition(topic, p) for p in range(4)))
        assert {r.partition: r.value for r in records} == {3: b"v", 1: b"w"}

    def test_none_and_empty_keys_and_values_stay_apart(self, lab: Lab) -> None:
        topic = lab.topic()
        lab.produce(topic, None, b"", b"x", None, keys=[b"k", None, b"", None], partitions=[0] * 4)
        records = lab.read(TopicPartition(topic, 0))
        assert [(r.key, r.value) for r in records] == [(b"k", None), (None, b""), (b"", b"x"), (None, None)]

    def test_headers_keep_order_repeats_empty_and_none(self, lab: Lab) -> None:
        topic = lab.topic()
        headers = [[("a", b"1"), ("b", b""), ("a", b"2"), ("n", None), ("ü", b"\x00\xff")], [], [("z", b"9")]]
        lab.produce(topic, b"x", b"y", b"z", headers=headers)
        lab.produce(topic, b"none")
        records = lab.read(TopicPartition(topic, 0))
        assert [list(r.headers) for r in records] == [*headers, []]

    def test_headers_follow_rows_that_are_taken_out_of_a_batch(self, lab: Lab) -> None:
        topic = lab.topic()
        lab.produce(topic, *numbered("v", 9), headers=[[("i", str(i).encode())] for i in range(9)])
        reader = lab.reader(TopicPartition(topic, 0))
        seen: list[list[tuple[str, bytes | None]]] = []
        while len(seen) < 9:
            for found in reader.poll(4, 1.0):
                seen += [list(record.headers) for record in records_of(found.slice(0, len(found)))]
        assert seen == [[("i", str(i).encode())] for i in range(9)]

    def test_given_timestamps_are_kept_and_missing_ones_are_stamped(self, lab: Lab) -> None:
        topic = lab.topic()
        before = time.time() * 1000 - 1000
        lab.produce(topic, b"a", b"b", timestamps=[1_500_000_000_123, NO_TIMESTAMP])
        lab.produce(topic, b"c")
        a, b, c = (record.timestamp for record in lab.read(TopicPartition(topic, 0)))
        assert a == 1_500_000_000_123
        assert before < b < before + 60_000
        assert before < c < before + 60_000

    def test_poll_hands_over_at_most_what_was_asked_for(self, lab: Lab) -> None:
        topic = lab.topic(2)
        lab.produce(topic, *numbered("v", 20), partitions=[0, 1] * 10)
        reader = lab.reader(TopicPartition(topic, 0), TopicPartition(topic, 1))
        values: list[bytes | None] = []
        while len(values) < 20:
            found = reader.poll(3, 1.0)
            assert sum(len(run) for run in found) <= 3
            values += [value for run in found for value in run.values]
        assert [v for v in values if v in numbered("v", 20)[::2]] == numbered("v", 20)[::2]

    def test_runs_are_of_one_topic_each(self, lab: Lab) -> None:
        one, two = lab.topic(), lab.topic()
        lab.produce(one, *numbered("1-", 5))
        lab.produce(two, *numbered("2-", 5))
        records = lab.read(TopicPartition(one, 0), TopicPartition(two, 0))
        assert [r.value for r in records if r.topic == one] == numbered("1-", 5)
        assert [r.value for r in records if r.topic == two] == numbered("2-", 5)

    def test_poll_without_records_comes_back_empty_in_time(self, lab: Lab) -> None:
        reader = lab.reader(TopicPartition(lab.topic(), 0))
        started = time.monotonic()
        assert reader.poll(10, 0.2) == []
        assert 0.1 < time.monotonic() - started < 5

    def test_a_waiting_reader_gets_what_arrives(self, lab: Lab) -> None:
        topic = lab.topic()
        reader = lab.reader(TopicPartition(topic, 0))
        assert reader.poll(10, 0.05) == []
        lab.produce(topic, b"new")
        assert [r.value for r in read_to(reader, {TopicPartition(topic, 0): 1})] == [b"new"]

    def test_a_reader_starts_at_its_offsets_and_knows_its_position(self, lab: Lab) -> None:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        lab.produce(topic, *numbered("v", 10))
        reader = lab.broker.reader({tp: 6})
        assert reader.position(tp) == 6
        assert [r.offset for r in read_to(reader, {tp: 10})] == [6, 7, 8, 9]
        assert reader.position(tp) == 10
        reader.close()

    def test_producing_to_an_unknown_topic_is_refused(self, lab: Lab) -> None:
        producer = lab.producer()
        with pytest.raises(UnknownTopic):
            producer.produce(batch(unique("nowhere"), b"v"))

    def test_a_failed_record_is_remembered_until_flush(self, lab: Lab) -> None:
        topic = lab.topic()
        producer = lab.producer()
        producer.produce(batch(topic, b"x" * (3 << 20)))
        producer.produce(batch(topic, b"fine"))
        with pytest.raises(StreampipeError):
            producer.flush()
        producer.produce(batch(topic, b"later"))
        producer.flush()
        assert [r.value for r in lab.read(TopicPartition(topic, 0))] == [b"fine", b"later"]
