"""Transactions: a row while one is open, gone when it ended. All functions but `expire` run inside a write.

Records of an open transaction are in the log already, and hold back the last stable offset of their partitions.
"""

from __future__ import annotations

from streampipe.brokers.local.database import Database
from streampipe.brokers.port import Offsets
from streampipe.errors import Fenced, TransactionAborted


def claim(db: Database, transactional_id: str) -> int:
    """Fence the last holder of the id, abort what it left open, and return the new holder's epoch."""
    sql = """INSERT INTO producers VALUES (?, 0) ON CONFLICT (transactional_id) DO UPDATE SET epoch = epoch + 1
             RETURNING epoch"""
    [(epoch,)] = db.query(sql, transactional_id)
    for (txn,) in db.query("SELECT id FROM transactions WHERE transactional_id = ?", transactional_id):
        abort(db, txn)
    return int(epoch)


def check_epoch(db: Database, transactional_id: str, epoch: int) -> None:
    """Raise Fenced when a newer producer holds the id."""
    sql = "SELECT 1 FROM producers WHERE transactional_id = ? AND epoch = ?"
    if not db.query(sql, transactional_id, epoch):
        raise Fenced(f"transactional id {transactional_id!r}: a newer producer took over; stop this one")


def check_open(db: Database, transactional_id: str, txn: int) -> None:
    """Raise TransactionAborted when the transaction is over."""
    if not db.query("SELECT 1 FROM transactions WHERE id = ?", txn):
        raise TransactionAborted(
            f"transactional id {transactional_id!r}: the transaction timed out and was aborted; "
            f"rewind to the committed offsets, and commit more often or raise transaction_timeout_ms"
        )


def start(db: Database, transactional_id: str, deadline_ms: int) -> int:
    """Open a transaction that anybody may abort after the deadline; its id."""
    sql = "INSERT INTO transactions (transactional_id, deadline_ms) VALUES (?, ?) RETURNING id"
    [(txn,)] = db.query(sql, transactional_id, deadline_ms)
    return int(txn)


def add_partition(db: Database, txn: int, partition_id: int, first_offset: int) -> None:
    """Hold back readers of a partition from `first_offset` on, unless the transaction does already."""
    sql = "INSERT INTO transaction_partitions VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    db.execute(sql, partition_id, txn, first_offset)


def add_offsets(db: Database, txn: int, group: str, offsets: Offsets) -> None:
    """Make consumed offsets part of the transaction."""
    sql, sent = "INSERT OR REPLACE INTO transaction_offsets VALUES (?, ?, ?, ?, ?, ?)", db.next_sent()
    db.execute_many(sql, [(group, tp.topic, tp.partition, txn, offset, sent) for tp, offset in offsets.items()])


def commit(db: Database, txn: int) -> None:
    """Let readers pass and make the offsets the group's, but for those that were sent before what the group has now.

    So does Kafka's group coordinator (`OffsetMetadataManager.replayEndTransactionMarker`).
    """
    sql = """INSERT INTO offsets
             SELECT group_name, topic, partition, offset, sent FROM transaction_offsets WHERE txn = ?
             ON CONFLICT DO UPDATE SET offset = excluded.offset, sent = excluded.sent WHERE excluded.sent > sent"""
    db.execute(sql, txn)
    _forget(db, txn)


def abort(db: Database, txn: int) -> None:
    """Delete the records and the offsets; the offsets of the records stay used."""
    sql = """DELETE FROM chunks WHERE txn = ?1 AND rowid IN (
                 SELECT c.rowid FROM transaction_partitions t
                 JOIN chunks c ON c.partition_id = t.partition_id AND c.last_offset >= t.first_offset
                 WHERE t.txn = ?1)"""
    db.execute(sql, txn)
    _forget(db, txn)


def _forget(db: Database, txn: int) -> None:
    db.execute("DELETE FROM transaction_partitions WHERE txn = ?", txn)
    db.execute("DELETE FROM transaction_offsets WHERE txn = ?", txn)
    db.execute("DELETE FROM transactions WHERE id = ?", txn)


def expire(db: Database, now_ms: int) -> bool:
    """Abort every transaction past its deadline; whether there were any. Writes only then."""
    sql = "SELECT id FROM transactions WHERE deadline_ms < ?"
    if not db.query(sql, now_ms):
        return False
    with db.write():
        for (txn,) in db.query(sql, now_ms):
            abort(db, txn)
    return True
