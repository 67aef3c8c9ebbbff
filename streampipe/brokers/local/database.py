"""The SQLite file: its tables, its connections, and its errors in words for people."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from streampipe.errors import ConfigError, StreampipeError, Unavailable

APPLICATION_ID: Final = 0x73747062
"""Marks a SQLite file as ours ("stpb")."""
VERSION: Final = 2
BUSY_TIMEOUT_S: Final = 5.0

SCHEMA: Final = """
CREATE TABLE topics (
    name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, config TEXT NOT NULL, id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    start_offset INTEGER NOT NULL DEFAULT 0, next_offset INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition));
CREATE TABLE chunks (
    partition_id INTEGER NOT NULL, last_offset INTEGER NOT NULL, base_offset INTEGER NOT NULL,
    max_timestamp INTEGER NOT NULL, txn INTEGER, data BLOB NOT NULL);
CREATE UNIQUE INDEX chunks_by_offset ON chunks (partition_id, last_offset, base_offset, max_timestamp);
CREATE TABLE producers (transactional_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE transactions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, transactional_id TEXT NOT NULL UNIQUE, deadline_ms INTEGER NOT NULL);
CREATE TABLE transaction_partitions (
    partition_id INTEGER, txn INTEGER, first_offset INTEGER NOT NULL, PRIMARY KEY (partition_id, txn)) WITHOUT ROWID;
CREATE TABLE transaction_offsets (
    group_name TEXT, topic TEXT, partition INTEGER, txn INTEGER, offset INTEGER NOT NULL, sent INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition, txn)) WITHOUT ROWID;
CREATE TABLE groups (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE members (
    id TEXT PRIMARY KEY, group_name TEXT NOT NULL, client TEXT NOT NULL, topics TEXT NOT NULL,
    co_partitioned INTEGER NOT NULL, deadline_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE assignments (
    group_name TEXT, topic TEXT, partition INTEGER, owner TEXT, since INTEGER NOT NULL DEFAULT 0, target TEXT,
    PRIMARY KEY (group_name, topic, partition)) WITHOUT ROWID;
CREATE TABLE offsets (
    group_name TEXT, topic TEXT, partition INTEGER, offset INTEGER NOT NULL, sent INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)) WITHOUT ROWID;
CREATE TABLE sequence (sent INTEGER NOT NULL);
INSERT INTO sequence VALUES (0)
"""

Row = tuple[Any, ...]


class Database:
    """One connection to the file. Not for several threads at a time; every client opens its own.

    Raises ConfigError for a file that cannot be opened or is not a streampipe broker, Unavailable when it stays
    locked for `BUSY_TIMEOUT_S` or the disk fails. A commit survives the death of the process at once, and that of
    the machine as soon as SQLite has synced its log (WAL with synchronous=NORMAL).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"local broker {path}: cannot create its folder: {error.strerror}") from error
        with self._errors():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        for pragma in ("synchronous = NORMAL", "wal_autocheckpoint = 4000", "journal_size_limit = 67108864"):
            self.execute(f"PRAGMA {pragma}")
        if not self._is_ours():
            self._switch_to_wal()
            with self.write():
                if not self._is_ours():
                    self._create()

    def _is_ours(self) -> bool:
        """Whether the file is a broker of this version, False when it is still empty; raises ConfigError."""
        [(application,)] = self.query("PRAGMA application_id")
        [(version,)] = self.query("PRAGMA user_version")
        if (application, version) == (APPLICATION_ID, VERSION):
            return True
        if application == APPLICATION_ID:
            raise ConfigError(f"local broker {self._path}: written by another version of streampipe; use a new file")
        if self.query("SELECT 1 FROM sqlite_master LIMIT 1"):
            raise ConfigError(f"local broker {self._path}: a SQLite file of something else; choose another path")
        return False

    def _switch_to_wal(self) -> None:
        # This switch does not honour the busy timeout, and another process may be at it right now.
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self.execute("PRAGMA journal_mode = WAL")
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _create(self) -> None:
        for statement in SCHEMA.split(";"):
            self.execute(statement)
        self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def write(self) -> Iterator[None]:
        """One atomic write; keep it short, it excludes every other writer of the file."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def next_sent(self) -> int:
        """Inside a write: a number for offsets that are sent now, larger than all before."""
        self.execute("UPDATE sequence SET sent = sent + 1")
        [(sent,)] = self.query("SELECT sent FROM sequence")
        return int(sent)

    def query(self, sql: str, *parameters: object) -> list[Row]:
        """All rows."""
        with self._errors():
            return self._connection.execute(sql, parameters).fetchall()

    def scan(self, sql: str, *parameters: object) -> Generator[Row, None, None]:
        """Rows one by one; close it early to let go of the snapshot."""
        with self._errors(), closing(self._connection.execute(sql, parameters)) as cursor:
            yield from cursor

    def execute(self, sql: str, *parameters: object) -> int:
        """Run a statement; the number of rows it changed."""
        with self._errors():
            return self._connection.execute(sql, parameters).rowcount

    def execute_many(self, sql: str, rows: Iterable[Row]) -> None:
        """Run a statement once for each row of parameters."""
        with self._errors():
            self._connection.executemany(sql, rows)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            translated = _translated(self._path, error)
            if translated is None:
                raise
            raise translated from error


def _translated(path: Path, error: sqlite3.Error) -> StreampipeError | None:
    """What a SQLite error means to the caller; None for a bug of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"local broker {path}: locked by another process for {BUSY_TIMEOUT_S:.0f} s; try again")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return Unavailable(f"local broker {path}: {error}; check the disk and try again")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return ConfigError(f"local broker {path}: not a readable SQLite file ({error}); restore it or move it away")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ConfigError(f"local broker {path}: {error}; check the path and its permissions")
    return None
