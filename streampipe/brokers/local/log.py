"""The log: topics, and the chunks of their partitions.

A partition's end is its high watermark (`next_offset`), or its last stable offset (LSO): the first offset of its
oldest open transaction. An aborted transaction's chunks are deleted, so everything below the LSO is committed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple
from uuid import uuid4

import numpy as np

from streampipe.brokers.local.chunks import Chunk, Encoded, decode, timestamps_of
from streampipe.brokers.local.database import Database
from streampipe.brokers.port import Isolation, TopicInfo
from streampipe.errors import UnknownTopic
from streampipe.records import TopicPartition

FETCH_BYTES = 16 << 20


class Ends(NamedTuple):
    """Where a partition starts and ends."""

    start: int
    stable: int
    high: int

    def end(self, isolation: Isolation) -> int:
        """End of what such a reader may see."""
        return self.stable if isolation == "read_committed" else self.high


def topic(db: Database, name: str) -> TopicInfo:
    """A topic with its config. Raises UnknownTopic."""
    for partitions, config, id_ in db.query("SELECT partitions, config, id FROM topics WHERE name = ?", name):
        return TopicInfo(name, partitions, json.loads(config), id_)
    raise UnknownTopic(name)


def partition_ids(db: Database, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The log's own id of each partition. Raises UnknownTopic."""
    topics = {tp.topic for tp in partitions}
    sql = "SELECT topic, partition, id FROM partitions WHERE topic IN (SELECT value FROM json_each(?))"
    known = {TopicPartition(name, p): i for name, p, i in db.query(sql, json.dumps(sorted(topics)))}
    for tp in partitions:
        if tp not in known:
            raise UnknownTopic(tp.topic)
    return {tp: known[tp] for tp in partitions}


def ends(db: Database, ids: Iterable[int]) -> dict[int, Ends]:
    """Start, LSO and high watermark by partition id, as of one moment; deleted partitions are absent."""
    sql = """SELECT id, start_offset, next_offset, (
                 SELECT min(first_offset) FROM transaction_partitions t WHERE t.partition_id = p.id)
             FROM partitions p WHERE id IN (SELECT value FROM json_each(?))"""
    return {
        i: Ends(start, high if first_open is None else first_open, high)
        for i, start, high, first_open in db.query(sql, json.dumps(list(ids)))
    }


def append(db: Database, partition_id: int, blocks: Sequence[Encoded], txn: int | None) -> int | None:
    """Append inside a write; the first record's offset, or None when the partition is gone."""
    rows = sum(block.rows for block in blocks)
    sql = "UPDATE partitions SET next_offset = next_offset + ? WHERE id = ? RETURNING next_offset"
    for (next_offset,) in db.query(sql, rows, partition_id):
        first = base = next_offset - rows
        stored = []
        for block in blocks:
            stored.append((partition_id, base + block.rows - 1, base, block.max_timestamp, txn, block.data))
            base += block.rows
        db.execute_many("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)", stored)
        return int(first)
    return None


def read(db: Database, partition_id: int, position: int, end: int, rows: int) -> list[Chunk]:
    """Chunks from `position` up to `end` that hold at least `rows` records, or as many as there are."""
    sql = """SELECT base_offset, last_offset, data FROM chunks
             WHERE partition_id = ? AND last_offset >= ? AND last_offset < ? ORDER BY last_offset"""
    found = []
    size = 0
    with closing(db.scan(sql, partition_id, position, end)) as scan:
        for base, last, data in scan:
            found.append(decode(base, last - base + 1, data))
            rows -= last - max(base, position) + 1
            size += len(data)
            if rows <= 0 or size >= FETCH_BYTES:
                break
    return found


def offset_at(db: Database, partition_id: int, timestamp: int, end: int) -> int:
    """Offset of the first record at or after `timestamp` (ms); `end` when there is none before it."""
    sql = """SELECT base_offset, last_offset, data FROM chunks
             WHERE partition_id = ? AND max_timestamp >= ? AND last_offset < ? ORDER BY last_offset LIMIT 1"""
    for base, last, data in db.query(sql, partition_id, timestamp, end):
        return int(base + np.argmax(timestamps_of(last - base + 1, data) >= timestamp))
    return end


def expire(db: Database, partition_id: int, before: int) -> None:
    """Inside a write: drop leading chunks whose records are all older than `before` (ms), up to the LSO."""
    stable = ends(db, [partition_id])[partition_id].stable
    sql = """SELECT base_offset FROM chunks WHERE partition_id = ? AND max_timestamp >= ?
             ORDER BY last_offset LIMIT 1"""
    kept = db.query(sql, partition_id, before)
    start = min(kept[0][0], stable) if kept else stable
    sql = "UPDATE partitions SET start_offset = ? WHERE id = ? AND start_offset < ?"
    if db.execute(sql, start, partition_id, start):
        db.execute("DELETE FROM chunks WHERE partition_id = ? AND last_offset < ?", partition_id, start)


def create_topic(db: Database, name: str, partitions: int, config: dict[str, str]) -> bool:
    """Inside a write; False when the topic exists."""
    sql = "INSERT INTO topics VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    if not db.execute(sql, name, partitions, json.dumps(config), uuid4().hex):
        return False
    db.execute_many("INSERT INTO partitions (topic, partition) VALUES (?, ?)", [(name, p) for p in range(partitions)])
    return True


def delete_topic(db: Database, name: str) -> None:
    """Inside a write: forget the topic, its records and what open transactions hold of it. Raises UnknownTopic."""
    if not db.execute("DELETE FROM topics WHERE name = ?", name):
        raise UnknownTopic(name)
    ids = [(i,) for (i,) in db.query("SELECT id FROM partitions WHERE topic = ?", name)]
    db.execute_many("DELETE FROM chunks WHERE partition_id = ?", ids)
    db.execute_many("DELETE FROM transaction_partitions WHERE partition_id = ?", ids)
    db.execute("DELETE FROM partitions WHERE topic = ?", name)
    db.execute("DELETE FROM offsets WHERE topic = ?", name)
    db.execute("DELETE FROM transaction_offsets WHERE topic = ?", name)
