"""A schema registry in one SQLite file, for a laptop, a test and a demo; several processes may share it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from streampipe.errors import ConfigError, IncompatibleSchema, Unavailable, UnknownSchema, UnknownSubject
from streampipe.schemas.avro import parse
from streampipe.schemas.model import SchemaError
from streampipe.schemas.port import RegisteredSchema
from streampipe.schemas.registry.compatibility import backward_incompatibilities

UNKNOWN_FOR_S = 30.0
_BUSY_S = 5.0

_TABLES = """
CREATE TABLE IF NOT EXISTS schema (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS version (
    subject TEXT NOT NULL, version INTEGER NOT NULL, schema INTEGER NOT NULL REFERENCES schema (id),
    PRIMARY KEY (subject, version), UNIQUE (subject, schema)
) WITHOUT ROWID;
"""

_VERSION = "SELECT subject, version, id, text FROM version JOIN schema ON schema.id = version.schema WHERE subject = ? "


class LocalRegistry:
    """`port.Registry` on a file, created with its folder when missing.

    Ids count from 1 over all subjects and belong to a schema, not to a subject. Two texts that are the same JSON are
    the same schema. A new version must be able to read what the latest one wrote (Confluent's BACKWARD).
    """

    def __init__(self, path: str) -> None:
        self.name = f"local:{path}"
        self._lock = threading.Lock()
        self._texts: dict[int, str] = {}
        self._unknown: dict[int, float] = {}
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Python opens no transaction by itself: `_writing` does.
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_TABLES)
        except (OSError, sqlite3.OperationalError) as e:
            raise Unavailable(f"schema registry {self.name} cannot be opened: {e}") from None
        except sqlite3.DatabaseError:
            raise ConfigError(f"{path} is not a schema registry file; move it away or name another one") from None

    def by_id(self, schema_id: int) -> str:
        """See `port.Registry`."""
        known = self._texts.get(schema_id)
        if known is not None:
            return known
        if self._unknown.get(schema_id, 0.0) > time.monotonic():
            raise UnknownSchema(schema_id)
        with self._reading() as db:
            row = db.execute("SELECT text FROM schema WHERE id = ?", (schema_id,)).fetchone()
        if row is None:
            self._unknown[schema_id] = time.monotonic() + UNKNOWN_FOR_S
            raise UnknownSchema(schema_id)
        return self._texts.setdefault(schema_id, row[0])

    def latest(self, subject: str) -> RegisteredSchema:
        """See `port.Registry`."""
        return self._one(_VERSION + "ORDER BY version DESC LIMIT 1", subject)

    def version(self, subject: str, version: int) -> RegisteredSchema:
        """See `port.Registry`."""
        return self._one(_VERSION + "AND version = ?", subject, version)

    def register(self, subject: str, text: str) -> int:
        """See `port.Registry`."""
        canonical = _canonical(text)
        with self._writing() as db:
            found = db.execute("SELECT id FROM schema WHERE text = ?", (canonical,)).fetchone()
            schema_id = None if found is None else int(found[0])
            at = "SELECT version FROM version WHERE subject = ? AND schema = ?"
            if schema_id is not None and db.execute(at, (subject, schema_id)).fetchone():
                return schema_id
            reasons = self._refusals(db, subject, canonical)
            if reasons:
                raise IncompatibleSchema(f"subject {subject!r} refuses the schema: {reasons[0]}")
            if schema_id is None:
                schema_id = int(db.execute("INSERT INTO schema (text) VALUES (?)", (canonical,)).lastrowid or 0)
            db.execute(
                "INSERT INTO version SELECT ?1, coalesce(max(version), 0) + 1, ?2 FROM version WHERE subject = ?1",
                (subject, schema_id),
            )
        self._unknown.pop(schema_id, None)
        return schema_id

    def incompatibilities(self, subject: str, text: str) -> list[str]:
        """See `port.Registry`. Raises ConfigError for a text that is no schema."""
        canonical = _canonical(text)
        with self._reading() as db:
            return self._refusals(db, subject, canonical)

    def subjects(self) -> list[str]:
        """See `port.Registry`."""
        with self._reading() as db:
            return [row[0] for row in db.execute("SELECT DISTINCT subject FROM version ORDER BY subject")]

    def close(self) -> None:
        """See `port.Registry`."""
        with self._lock:
            self._db.close()

    def _one(self, query: str, subject: str, *parameters: int) -> RegisteredSchema:
        with self._reading() as db:
            row = db.execute(query, (subject, *parameters)).fetchone()
        if row is None:
            raise UnknownSubject(subject)
        return RegisteredSchema(*row)

    def _refusals(self, db: sqlite3.Connection, subject: str, text: str) -> list[str]:
        row = db.execute(_VERSION + "ORDER BY version DESC LIMIT 1", (subject,)).fetchone()
        if row is None or row[3] == text:
            return []
        return backward_incompatibilities(reader=text, writer=row[3])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as e:
                raise Unavailable(f"schema registry {self.name}: {e}") from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def _canonical(text: str) -> str:
    """The JSON without spaces, keys sorted: equal schemas become equal texts. Raises ConfigError for no schema."""
    try:
        parse(text)
    except SchemaError as e:
        raise ConfigError(f"not a valid Avro schema: {e}") from None
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:  # a bare primitive name
        return orjson.dumps(text.strip()).decode()
