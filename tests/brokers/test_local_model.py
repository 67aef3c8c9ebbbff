"""The embedded log against a list, its chunks against themselves, and the laws of assignment."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.brokers.local import LocalBroker, chunks
from streampipe.brokers.local.assignor import assign
from streampipe.records import ProduceBatch, Record, TopicPartition, records_of
from tests.brokers.helpers import Lab

entries = st.none() | st.binary(max_size=6)
header_lists = st.lists(st.tuples(st.text(max_size=3), entries), max_size=2)
rows = st.tuples(entries, entries, st.integers(0, 10), header_lists)
steps = st.lists(st.tuples(st.sampled_from(["plain", "commit", "abort"]), st.lists(rows, min_size=1, max_size=7)))


@settings(max_examples=40)
@given(steps, st.integers(1, 9), st.integers(0, 25), st.integers(0, 11))
def test_the_log_is_a_list(
    steps: list[tuple[str, list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]]]],
    max_records: int,
    start: int,
    time_ms: int,
) -> None:
    """Any mix of appends, read from any offset in polls of any size, through chunks that are cut very small."""
    model: list[Record] = []
    end = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.multiple(chunks, MAX_ROWS=3, MAX_BYTES=12),
        Lab(LocalBroker(Path(folder) / "broker.db")) as lab,
    ):
        lab.admin.create_topic("t", 1)
        tp = TopicPartition("t", 0)
        plain, transactional = lab.producer(), lab.producer("tx")
        for kind, added in steps:
            keys, values, timestamps, headers = zip(*added, strict=True)
            batch = ProduceBatch("t", keys, values, timestamps, [0] * len(added), headers)
            if kind == "plain":
                plain.produce(batch)
            else:
                transactional.begin()
                transactional.produce(batch)
                transactional.commit() if kind == "commit" else transactional.abort()
            if kind != "abort":
                model += [Record("t", 0, end + i, t, k, v, h) for i, (k, v, t, h) in enumerate(added)]
            end += len(added)
        reader = lab.broker.reader({tp: min(start, end)})
        found = []
        while reader.position(tp) < end:
            for run in reader.poll(max_records, 0.0):
                assert len(run) <= max_records
                found += [record._replace(headers=list(record.headers)) for record in records_of(run)]
        reader.close()
        assert found == [record for record in model if record.offset >= start]
        after = [record.offset for record in model if record.timestamp >= time_ms]
        assert lab.admin.offsets([tp], time_ms) == {tp: min(after, default=end)}


@given(st.lists(st.tuples(entries, entries, st.integers(-1, 2**62)), min_size=1), st.integers(1, 5), st.integers(1, 30))
def test_chunks_come_back_as_they_were(
    records: list[tuple[bytes | None, bytes | None, int]], max_rows: int, max_bytes: int
) -> None:
    keys, values, timestamps = (list(column) for column in zip(*records, strict=True))
    with mock.patch.multiple(chunks, MAX_ROWS=max_rows, MAX_BYTES=max_bytes):
        blocks = list(chunks.encode(np.array(timestamps, np.int64), keys, values, None))
    decoded = [chunks.decode(0, block.rows, block.data) for block in blocks]
    assert [key for chunk in decoded for key in chunk.keys] == keys
    assert [value for chunk in decoded for value in chunk.values] == values
    assert [t for chunk in decoded for t in chunk.timestamps.tolist()] == timestamps
    for block, chunk in zip(blocks, decoded, strict=True):
        assert block.max_timestamp == chunk.timestamps.max()
        size = sum(len(entry or b"") for entry in chunk.keys + chunk.values)
        assert block.rows == 1 or (block.rows <= max_rows and size <= max_bytes)


counts = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 9), min_size=1)
names = st.sets(st.sampled_from(["m1", "m2", "m3", "m4", "m5"]), min_size=1)


@given(counts, names, names, st.booleans())
def test_members_with_the_same_topics_share_evenly_and_little_moves(
    partitions: dict[str, int], before: set[str], after: set[str], co_partitioned: bool
) -> None:
    topics = tuple(partitions)
    old = assign(dict.fromkeys(before, topics), partitions, {}, co_partitioned)
    new = assign(dict.fromkeys(after, topics), partitions, old, co_partitioned)
    assert set(new) == {TopicPartition(topic, p) for topic, count in partitions.items() for p in range(count)}

    def unit(tp: TopicPartition) -> object:
        return tp.partition if co_partitioned else tp

    units = {unit(tp): new[tp] for tp in new}
    assert all(units[unit(tp)] == member for tp, member in new.items()), "a unit is whole"
    loads = [list(units.values()).count(member) for member in after]
    assert max(loads) - min(loads) <= 1
    moved = {unit(tp) for tp in new if old[tp] in after and new[tp] != old[tp]}
    kept = [len({unit(tp) for tp in old if old[tp] == member}) for member in before & after]
    fair = len(units) // len(after)
    assert len(moved) <= sum(max(0, load - fair) for load in kept), "only what is above a fair share moves"
    assert assign(dict.fromkeys(after, topics), partitions, new, co_partitioned) == new


@given(counts, st.dictionaries(st.sampled_from(["m1", "m2", "m3"]), st.sets(st.sampled_from("abc"))), st.booleans())
def test_a_partition_goes_to_a_subscriber_whenever_there_is_one(
    partitions: dict[str, int], subscriptions: dict[str, set[str]], co_partitioned: bool
) -> None:
    assigned = assign(subscriptions, partitions, {}, co_partitioned)
    assert all(tp.topic in subscriptions[member] for tp, member in assigned.items())
    wanted = {topic for topics in subscriptions.values() for topic in topics} & partitions.keys()
    assert set(assigned) == {TopicPartition(topic, p) for topic in wanted for p in range(partitions[topic])}
